"""Master secrets and what is derived from them."""

from __future__ import annotations

import base64
import secrets

import pytest

from revocation.keys.keyring import Keyring, MasterSecret, SecretInvalid, new_secret, parse_secret

FIXED = "k1:" + base64.b64encode(bytes(range(32))).decode()


def test_lists_may_be_written_in_any_usual_way() -> None:
    """Commas, spaces, lines, comments; standard or URL-safe base64, padded or not. The first is current."""
    value = b"\xfb\xef\xff" + secrets.token_bytes(29)
    forms = {base64.b64encode(value).decode(), base64.urlsafe_b64encode(value).decode().rstrip("=")}
    for form in forms:
        text = f"# comment: not an item\nnew:{form},{new_secret('old')}\n  {new_secret('older')}\n"
        masters = parse_secret(text)
        assert [master.kid for master in masters] == ["new", "old", "older"]
        assert masters[0].value == value
    assert Keyring.parse(text).current_kid == "new"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "openssl rand"),
        ("# nothing\n", "openssl rand"),
        ("c2VjcmV0", "kid:base64"),
        (f"a b:{'A' * 43}", "kid:base64"),
        (f"{'k' * 17}:{'A' * 43}", "kid:base64"),
        ("k1:???", "not base64"),
        ("k1:" + "A" * 41, "not base64"),
        ("k1:c2VjcmV0", "6 bytes"),
        (f"k1:{'A' * 4000}", "3000 bytes"),
        (f"{FIXED} k1:{'A' * 43}", "one key id"),
        (f"{FIXED} {FIXED.replace('k1', 'k2')}", "two key ids"),
        (" ".join(f"k{number}:{'A' * 43}" for number in range(17)), "more than 16"),
    ],
)
def test_unusable_secrets_say_what_to_do_and_not_what_they_are(text: str, says: str) -> None:
    """The message names the item and the rule; it never contains the secret."""
    with pytest.raises(SecretInvalid, match=says) as caught:
        parse_secret(text)
    for item in text.split():
        encoded = item.partition(":")[2]
        assert not encoded or encoded not in str(caught.value)
    assert caught.value.__cause__ is None


def test_derivations_are_stable() -> None:
    """These values are in stores and in tokens: a change of the derivation would disown them all."""
    keyring = Keyring.parse(FIXED)
    (key,) = keyring.realm_keys("default")
    assert key.key.hex() == "dd6cafad8276b4e508641a45b7affe9f8370c447eca24c4c9ce30fb2d2bd4d5d"
    assert keyring.session_key("k1", "mac").hex() == "db207c28eba92da3f010dc771d76c3fd7f0330c8f1db7d2940f074da0d44fb1a"
    assert keyring.commitments() == {"k1": "3a8c8cf52c56e50a022357a3b12da3f4150fcac3b632d9e70a4a748f7f2f7f77"}


def test_derivations_are_separate() -> None:
    """Realms, purposes, key ids and commitments never share a key."""
    keyring = Keyring.parse(f"{new_secret('a')} {new_secret('b')}")
    keys = [
        *(key.key for realm in ("default", "shop", "mac") for key in keyring.realm_keys(realm)),
        *(keyring.session_key(kid, purpose) for kid in keyring.kids for purpose in ("mac", "seal", "default")),
        *(bytes.fromhex(commitment) for commitment in keyring.commitments().values()),
    ]
    assert len(set(keys)) == len(keys) == 14
    assert {len(key) for key in keys} == {32}


def test_current_key_comes_first() -> None:
    """Writers take the first; the order of the list decides."""
    one, two = new_secret("one"), new_secret("two")
    forward, backward = Keyring.parse(f"{one} {two}"), Keyring.parse(f"{two} {one}")
    assert forward.realm_keys("r") == backward.realm_keys("r")[::-1]
    assert (forward.current_kid, backward.current_kid) == ("one", "two")


def test_clash_of_tags_is_refused() -> None:
    """Rows name their key by 16 bits: two keys of a realm with the same tag would make entries ambiguous."""
    first = MasterSecret("first", bytes(32))
    (wanted,) = Keyring([first]).realm_keys("r")
    candidates = (MasterSecret("second", number.to_bytes(32, "big")) for number in range(1, 2_000_000))
    second = next(master for master in candidates if Keyring([master]).realm_keys("r")[0].tag == wanted.tag)
    with pytest.raises(SecretInvalid, match=r"realm r .* same tag; replace"):
        Keyring([first, second]).realm_keys("r")
    assert len(Keyring([first, second]).realm_keys("other realm")) == 2


def test_unknown_key_id_is_a_key_error() -> None:
    """What was made under a secret that is gone cannot be checked."""
    with pytest.raises(KeyError):
        Keyring.parse(FIXED).session_key("k0", "mac")


def test_no_secret_is_shown() -> None:
    """Neither by the keyring nor by anything that it hands out."""
    keyring = Keyring.parse(FIXED)
    shown = repr([keyring, parse_secret(FIXED), keyring.realm_keys("default")])
    for hidden in (FIXED.partition(":")[2], repr(bytes(range(32)))[2:-1], bytes(range(32)).hex()):
        assert hidden not in shown
    assert "k1" in shown
