"use strict";
// Logs in with what was typed, or with the token that the address has behind its `#`, which no server ever sees.
const field = (id) => document.getElementById(id);
const next = () => {
  const wanted = new URL(new URLSearchParams(location.search).get("next") || "/", location.origin);
  return wanted.origin === location.origin ? wanted.pathname + wanted.search : "/";
};
const say = (text) => { field("said").textContent = text; };
const post = async (path, body) => {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const said = await answer.json();
  if (!answer.ok) say(said.message);
  return answer.ok ? said : null;
};
const logIn = async (credentials) => {
  if (await post("/login", credentials)) location.replace(next());
};
const refusals = {
  again: "This login took too long, or was not begun in this browser. Please try again.",
  often: "Too many logins failed. Please try again in a minute.",
  denied: "The login was cancelled, or refused by the identity provider.",
  unknown: "You have no account here. Ask an administrator of this server for one.",
};
field("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = field("token").value.trim();
  logIn(token ? { token } : { user: field("user").value, password: field("password").value });
});
field("provider")?.addEventListener("click", async () => {
  const found = await post("/login/oidc", { next: next() });
  if (found) location.assign(found.url);
});
const behind = new URLSearchParams(location.hash.slice(1));
const token = behind.get("token");
const refused = behind.get("refused");
if (refused) say(refusals[refused] ?? "The identity provider did not answer as it should; the server's log says why.");
if (token) {
  history.replaceState(null, "", location.pathname + location.search);
  logIn({ token });
} else {
  // A link from another site comes without the session's cookie; from here it comes with it.
  fetch("/session").then((answer) => { if (answer.ok) location.replace(next()); });
}
