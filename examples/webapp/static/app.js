// The access token lives here, in memory, and nowhere else: a reload gets a new one by the refresh cookie.
let accessToken = null;

const find = (id) => document.getElementById(id);
const cookie = (name) => document.cookie.split("; ").find((c) => c.startsWith(name + "="))?.slice(name.length + 1);

async function post(path, body, headers = {}) {
  return fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-csrf": cookie("csrf") ?? "", ...headers },
    body: JSON.stringify(body ?? {}),
  });
}

// Whether there is a new access token; undefined: nobody knows whether the session lives.
async function refresh() {
  if (!cookie("csrf")) return false;
  const response = await post("/session/refresh");
  if (response.status >= 500) {
    say("The service cannot answer now. Please try again.");
    return undefined;
  }
  if (!response.ok) {
    const { why } = await response.json();
    signedOut(why ? `Your session has ended (${why}).` : "");
    return false;
  }
  accessToken = (await response.json()).access_token;
  return true;
}

// A call with the access token; once refused, one refresh, then once more.
async function api(path, body) {
  const send = () => {
    const authorization = { authorization: `Bearer ${accessToken}` };
    return body === undefined ? fetch(path, { headers: authorization }) : post(path, body, authorization);
  };
  let response = await send();
  const refreshed = response.status === 401 && (await refresh());
  if (refreshed) response = await send();
  if (response.status === 401 && refreshed !== undefined && accessToken !== null) signedOut("You have been signed out.");
  return response;
}

function signedOut(message) {
  accessToken = null;
  find("account").hidden = true;
  find("login").hidden = false;
  if (message !== undefined) say(message);
}

function say(message) {
  find("message").textContent = message;
}

function row(device) {
  const cells = [device.device, device.address, new Date(device.last_seen_at * 1000).toLocaleString()];
  const tr = document.createElement("tr");
  for (const text of cells) tr.insertCell().textContent = text;
  const last = tr.insertCell();
  if (device.current) {
    last.textContent = "this device";
  } else {
    const button = document.createElement("button");
    button.textContent = "Sign out";
    button.addEventListener("click", async () => {
      await api("/api/devices/end", { handle: device.handle });
      await show();
    });
    last.append(button);
  }
  return tr;
}

async function show() {
  const who = await api("/api/me");
  if (!who.ok) return;
  const { user, admin } = await who.json();
  const { devices } = await (await api("/api/devices")).json();
  find("who").textContent = user;
  find("admin").hidden = !admin;
  find("devices").replaceChildren(...devices.map(row));
  find("login").hidden = true;
  find("account").hidden = false;
}

function onSubmit(id, action) {
  find(id).addEventListener("submit", (event) => {
    event.preventDefault();
    action();
  });
}

onSubmit("login", async () => {
  const form = { user: find("user").value, password: find("password").value, device: find("device").value };
  const response = await post("/session/login", form);
  if (!response.ok) {
    say("Wrong user or password.");
    return;
  }
  accessToken = (await response.json()).access_token;
  say("");
  await show();
});

onSubmit("change", async () => {
  const response = await api("/api/password", { password: find("new-password").value });
  if (response.ok) {
    accessToken = (await response.json()).access_token;
    say("Changed. All other devices are signed out.");
    await show();
  }
});

onSubmit("admin", async () => {
  const response = await api("/api/admin/logout", { user: find("victim").value });
  say(response.ok ? "Done." : "That did not work.");
});

find("reload").addEventListener("click", show);

// Says so only when it is so.
async function signOut(asked, message) {
  const response = await asked.catch(() => null); // null: the server was not reached
  if (response?.ok) signedOut(message);
  else if (accessToken !== null) say("That did not work: you are still signed in. Please try again.");
}

find("logout").addEventListener("click", async () => {
  await signOut(post("/session/logout"), "Signed out."); // by the cookie, which outlives access tokens
});
find("everywhere").addEventListener("click", async () => {
  await signOut(api("/api/logout-everywhere", {}), "Signed out everywhere.");
});

if (await refresh()) await show();
else signedOut();
