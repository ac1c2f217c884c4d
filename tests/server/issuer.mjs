// npm's `oidc-provider`, with its own pages to log in at: everybody is who he says he is, any password will do.
import { Provider } from "oidc-provider";

const [port, redirect] = process.argv.slice(2);
const groups = { ana: ["ml-team"], bo: ["visitors"] };
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: "hub",
      client_secret: "a secret of the hub's",
      redirect_uris: [redirect],
      post_logout_redirect_uris: [redirect],
    },
  ],
  claims: { openid: ["sub"], profile: ["preferred_username"], email: ["email", "email_verified"], groups: ["groups"] },
  scopes: ["openid", "profile", "email", "groups"],
  findAccount: async (_, id) => ({
    accountId: id,
    claims: async () => ({
      sub: id,
      preferred_username: id,
      email: `${id}@example.org`,
      email_verified: true,
      groups: groups[id] ?? [],
    }),
  }),
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
