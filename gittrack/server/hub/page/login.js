"use strict";
// Logs in with what was typed, or with the token that the address has behind its `#`, which no server ever sees.
const field = (id) => document.getElementById(id);
const next = () => {
  const wanted = new URL(new URLSearchParams(location.search).get("next") || "/", location.origin);
  return wanted.origin === location.origin ? wanted.pathname + wanted.search : "/";
};
const logIn = async (credentials) => {
  const answer = await fetch("/login", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(credentials),
  });
  if (answer.ok) location.replace(next());
  else field("said").textContent = (await answer.json()).message;
};
field("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = field("token").value.trim();
  logIn(token ? { token } : { user: field("user").value, password: field("password").value });
});
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) {
  history.replaceState(null, "", location.pathname + location.search);
  logIn({ token });
} else {
  // A link from another site comes without the session's cookie; from here it comes with it.
  fetch("/session").then((answer) => { if (answer.ok) location.replace(next()); });
}
