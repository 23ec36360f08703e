"""A small web application with real sessions: login, silent refresh, "your devices", sign out everywhere.

    make example          # then open the address that it prints

The refresh token lives in a cookie that scripts cannot read (HttpOnly, Secure, SameSite=Strict) and that is sent to
`/session/` alone; the access token lives in the page's memory. Requests that carry the cookie must also prove that they
come from our own page: a header that repeats a second cookie, and an Origin that is ours.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from hashlib import scrypt
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from revocation_sdk import (
    AsyncRevocationClient,
    AsyncTokenIssuer,
    Login,
    RevocationError,
    SessionEnded,
    StatusUnknown,
    TokenRejected,
    Verifier,
)

ISSUER, AUDIENCE = "https://webapp.example", "webapp"
REFRESH, CSRF = "refresh", "csrf"
ACCESS_LIFETIME_S = 300
COOKIE_LIFETIME_S = 30 * 24 * 3600


@dataclass
class User:
    """Somebody who may log in; a real application has a table of them."""

    name: str
    salt: bytes
    digest: bytes
    admin: bool = False

    def knows(self, password: str) -> bool:
        """Whether this is the password."""
        return hmac.compare_digest(self.digest, _digest(password, self.salt))


@dataclass
class Application:
    """What the handlers share."""

    client: AsyncRevocationClient
    issuer: AsyncTokenIssuer
    verifier: Verifier
    users: dict[str, User] = field(default_factory=dict)

    def add_user(self, name: str, password: str, *, admin: bool = False) -> None:
        """Adds a user, or changes the password."""
        salt = secrets.token_bytes(16)
        self.users[name] = User(name, salt, _digest(password, salt), admin)


def _digest(password: str, salt: bytes) -> bytes:
    return scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


# -- sessions -----------------------------------------------------------------------------------------------------


async def login(request: Request) -> Response:
    """POST /session/login {user, password}: opens a session on this device."""
    _from_our_page(request)
    app, form = _app(request), await request.json()
    user = app.users.get(str(form.get("user")))
    if user is None or not user.knows(str(form.get("password"))):
        raise HTTPException(401, "wrong user or password")
    opened = await app.issuer.login(
        user.name,
        device=str(form.get("device") or "a browser")[:64],
        address=request.client.host if request.client else None,
        user_agent=request.headers.get("user-agent"),
        claims=_claims(user),
    )
    return _logged_in(opened)


async def refresh(request: Request) -> Response:
    """POST /session/refresh: a new access token for the session of the cookie."""
    _from_our_page(request)
    _proves_csrf(request)
    app = _app(request)
    try:
        return _logged_in(
            await app.issuer.refresh(_cookie(request), claims=lambda grant: _claims_of(app, grant.subject))
        )
    except SessionEnded as error:
        return _logged_out(JSONResponse({"error": "session_ended", "why": error.reason}, 401))


async def logout(request: Request) -> Response:
    """POST /session/logout: ends the session of the cookie, wherever its tokens are.

    Not that of the access token: who was idle for a while has none that is valid, and wants to sign out all the same.
    """
    _from_our_page(request)
    _proves_csrf(request)
    issuer = _app(request).issuer
    with contextlib.suppress(SessionEnded):  # then there is nothing left to end
        login = await issuer.refresh(_cookie(request))  # only the service can tell which session the cookie is of
        await issuer.logout(login.session_id)
    return _logged_out(JSONResponse({}))


# -- what a signed-in user may do -----------------------------------------------------------------------------------


async def me(request: Request) -> Response:
    """GET /api/me: who is signed in."""
    claims = await _claims_of_request(request)
    return JSONResponse({"user": claims["sub"], "admin": bool(claims.get("admin"))})


async def devices(request: Request) -> Response:
    """GET /api/devices: the sessions of this user."""
    claims = await _claims_of_request(request)
    found = await _app(request).issuer.sessions(claims["sub"], current=claims["sid"])
    rows = [
        {
            "handle": session.handle,
            "device": session.device,
            "address": session.address,
            "last_seen_at": session.last_seen_at,
            "current": session.current,
        }
        for session in found
    ]
    return JSONResponse({"devices": rows})


async def end_device(request: Request) -> Response:
    """POST /api/devices/end {handle}: signs one device out."""
    claims, form = await _claims_of_request(request), await request.json()
    await _app(request).issuer.logout(str(form["handle"]), sub=claims["sub"])
    return JSONResponse({})


async def sign_out_everywhere(request: Request) -> Response:
    """POST /api/logout-everywhere: ends all sessions of this user, this one too."""
    claims = await _claims_of_request(request)
    await _app(request).issuer.logout_everywhere(claims["sub"])
    return _logged_out(JSONResponse({}))


async def change_password(request: Request) -> Response:
    """POST /api/password {password}: a new password; everything but this session ends."""
    claims, form = await _claims_of_request(request), await request.json()
    app = _app(request)
    user = app.users[claims["sub"]]
    app.add_user(user.name, str(form["password"]), admin=user.admin)
    return _logged_in(await app.issuer.logout_others(user.name, keep=claims["sid"], claims=_claims(user)))


async def admin_sign_out(request: Request) -> Response:
    """POST /api/admin/logout {user}: an administrator signs somebody out everywhere."""
    claims, form = await _claims_of_request(request), await request.json()
    if not claims.get("admin"):
        raise HTTPException(403, "for administrators")
    await _app(request).issuer.logout_everywhere(str(form["user"]))
    return JSONResponse({})


# -- plumbing -------------------------------------------------------------------------------------------------------


def _app(request: Request) -> Application:
    app: Application = request.app.state.application
    return app


def _claims(user: User) -> dict[str, Any]:
    return {"admin": True} if user.admin else {}


def _claims_of(app: Application, name: str) -> dict[str, Any]:
    user = app.users.get(name)
    return _claims(user) if user else {}


async def _claims_of_request(request: Request) -> Mapping[str, Any]:
    """The claims of the access token; 401 if it is not valid, 503 if nobody can tell."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise HTTPException(401, "an access token is needed")
    try:
        return (await _app(request).verifier.verify_async(token)).claims
    except TokenRejected as error:
        raise HTTPException(401, error.reason) from None
    except StatusUnknown:
        raise HTTPException(503, "revocation status unknown") from None


def _cookie(request: Request) -> str:
    token = request.cookies.get(REFRESH)
    if not token:
        raise HTTPException(401, "not signed in")
    return token


def _from_our_page(request: Request) -> None:
    """A cross-site request names another Origin; browsers do not let pages forge it."""
    origin = request.headers.get("origin")
    if origin is not None and origin.rpartition("//")[2] != request.headers.get("host"):
        raise HTTPException(403, "from another site")


def _proves_csrf(request: Request) -> None:
    """The page repeats the readable cookie in a header, which another site's page cannot read."""
    cookie, header = request.cookies.get(CSRF, ""), request.headers.get("x-csrf", "")
    if not cookie or not hmac.compare_digest(cookie.encode(), header.encode()):
        raise HTTPException(403, "csrf")


def _logged_in(login: Login) -> Response:
    response = JSONResponse({"access_token": login.access_token, "expires_at": login.expires_at})
    _set(response, REFRESH, login.refresh_token, path="/session/", httponly=True)
    _set(response, CSRF, secrets.token_urlsafe(16), path="/", httponly=False)
    return response


def _logged_out(response: Response) -> Response:
    response.delete_cookie(REFRESH, path="/session/", secure=True, httponly=True, samesite="strict")
    response.delete_cookie(CSRF, path="/", secure=True, samesite="strict")
    return response


def _set(response: Response, name: str, value: str, *, path: str, httponly: bool) -> None:
    response.set_cookie(
        name, value, max_age=COOKIE_LIFETIME_S, path=path, secure=True, httponly=httponly, samesite="strict"
    )


async def _fault(_: Request, error: Exception) -> Response:
    reason = error.reason if isinstance(error, RevocationError) else "unknown"
    return JSONResponse({"error": reason}, 503)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


ROUTES = [
    Route("/session/login", login, methods=["POST"]),
    Route("/session/refresh", refresh, methods=["POST"]),
    Route("/session/logout", logout, methods=["POST"]),
    Route("/api/me", me),
    Route("/api/devices", devices),
    Route("/api/devices/end", end_device, methods=["POST"]),
    Route("/api/logout-everywhere", sign_out_everywhere, methods=["POST"]),
    Route("/api/password", change_password, methods=["POST"]),
    Route("/api/admin/logout", admin_sign_out, methods=["POST"]),
    Mount("/", StaticFiles(directory=Path(__file__).parent / "static", html=True)),
]


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """One client and one key for the life of the process. REVOCATION_ADDRESS says where the service is."""
    key = ec.generate_private_key(ec.SECP256R1())
    async with AsyncRevocationClient(os.environ.get("REVOCATION_ADDRESS", "localhost:50051")) as client:
        issuer = AsyncTokenIssuer(
            client, key=key, algorithm="ES256", issuer=ISSUER, audience=AUDIENCE, lifetime=ACCESS_LIFETIME_S
        )
        verifier = Verifier(client, key=key.public_key(), algorithms=["ES256"], issuer=ISSUER, audience=AUDIENCE)
        application = app.state.application = Application(client, issuer, verifier)
        application.add_user("alice", "wonderland")
        application.add_user("bob", "builder")
        application.add_user("root", "toor", admin=True)
        await client.wait_until_fresh(timeout=10)
        yield


app = Starlette(routes=ROUTES, lifespan=lifespan, exception_handlers={RevocationError: _fault, HTTPException: _refused})
