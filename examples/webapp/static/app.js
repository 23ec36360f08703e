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

async function refresh() {
  if (!cookie("csrf")) return false;
  const response = await post("/session/refresh");
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
  if (response.status === 401 && (await refresh())) response = await send();
  if (response.status === 401 && accessToken !== null) signedOut("You have been signed out.");
  return response;
}

function signedOut(message) {
  accessToken = null;
  find("account").hidden = true;
  find("login").hidden = false;
  if (message !== undefined) find("message").textContent = message;
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
    find("message").textContent = "Wrong user or password.";
    return;
  }
  accessToken = (await response.json()).access_token;
  find("message").textContent = "";
  await show();
});

onSubmit("change", async () => {
  const response = await api("/api/password", { password: find("new-password").value });
  if (response.ok) {
    accessToken = (await response.json()).access_token;
    find("message").textContent = "Changed. All other devices are signed out.";
    await show();
  }
});

onSubmit("admin", async () => {
  const response = await api("/api/admin/logout", { user: find("victim").value });
  find("message").textContent = response.ok ? "Done." : "That did not work.";
});

find("reload").addEventListener("click", show);
find("logout").addEventListener("click", async () => {
  await post("/session/logout", {}, { authorization: `Bearer ${accessToken}` });
  signedOut("Signed out.");
});
find("everywhere").addEventListener("click", async () => {
  await api("/api/logout-everywhere", {});
  signedOut("Signed out everywhere.");
});

if (await refresh()) await show();
else signedOut();
