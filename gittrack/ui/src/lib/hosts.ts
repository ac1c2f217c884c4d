// Where a commit can be looked at in a browser, from the address that git fetches from.

/** How hosts address a commit, by what is in their name; all others do as GitHub and Gitea. */
const WAYS: [RegExp, string][] = [
  [/gitlab/, "/-/commit/"],
  [/bitbucket/, "/commits/"],
];

function parsed(address: string): URL | null {
  try {
    return new URL(address);
  } catch {
    return null;
  }
}

/** The page of a commit on its host; empty if the remote is none that a browser can visit. */
export function commitUrl(remote: string | undefined, commit: string | undefined): string {
  if (!remote || !commit || !/^[0-9a-f]{7,64}$/.test(commit)) return "";
  // `git@host:team/model.git` is ssh, as `ssh://git@host/team/model.git` is.
  const short = /^(?:[^\s/@]+@)?([^\s/:@]+):(?!\/\/)([^\s]+)$/.exec(remote);
  const url = parsed(short ? `ssh://${short[1]}/${short[2]}` : remote);
  if (!url || !["http:", "https:", "ssh:", "git+ssh:"].includes(url.protocol) || !/^[\w.-]+$/.test(url.hostname)) return "";
  const web = url.protocol.startsWith("http");
  const host = web ? url.host : url.hostname;
  const path = url.pathname.replace(/\/+$/, "").replace(/\.git$/, "").replace(/^\/+/, "");
  if (!path || !host.includes(".")) return "";
  const way = WAYS.find(([name]) => name.test(host))?.[1] ?? "/commit/";
  return `${web ? url.protocol : "https:"}//${host}/${path}${way}${commit}`;
}
