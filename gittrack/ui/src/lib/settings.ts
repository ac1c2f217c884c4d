// What the server is asked about itself, its accounts and whoever asks; see `settings.py` there.

import { get } from "./api";
import { send } from "./registry";

export interface Me {
  name: string;
  kind: string;
  is_admin: boolean;
  may: string;
  accounts: boolean;
}

export interface Token {
  id: string;
  name: string;
  owner: string | null;
  may: string;
  role: string | null;
  created: number;
  created_by: string;
  expires: number | null;
  last_used: number | null;
  ended: boolean;
}

export interface Grant {
  role: string | null;
  experiments: string | null;
  models: string | null;
}

export interface User {
  name: string;
  grants: Grant[];
  may: string;
  /** Identity providers that know him, and what follows from what they say. */
  identities: { issuer: string; may: string }[];
  has_password: boolean;
  created: number;
  created_by: string;
}

export interface Line {
  seq: number;
  time: string;
  who: string;
  how: string;
  what: string;
  object: string;
  address: string;
  outcome: string;
}

export interface Remote {
  name: string;
  url: string;
  default: boolean;
  trouble: string;
  seen?: number;
  runs?: number;
  revised?: number;
  tags?: number;
  runs_there?: number;
  tags_there?: number;
  unreadable?: number;
}

export interface Share {
  runs: number;
  files: number;
  size: number;
  distinct: number;
}

export interface Storage {
  objects: number;
  size: number;
  whole: Share;
  unreadable: number;
  experiments: (Share & { experiment_id: string; name: string })[];
  dropped: number;
  dropped_size: number;
  kept_young: number;
  grace_days: number;
}

export interface Webhook {
  id: string;
  url: string;
  /** None: all. */
  events: string[];
  projects: string[];
  private: boolean;
  created: number;
  created_by: string;
  waiting: number;
  delivered: number;
  dead: number;
  last_delivered: number | null;
  /** The last delivery that has failed so far; `again` is when it is tried next, if it is. */
  trouble: { event: string; created: number; tries: number; error: string; again: number | null } | null;
}

export interface Server {
  version: string;
  python: string;
  store: string;
  database: string;
  objects: string;
  projects: string[];
  tls: boolean;
  loopback: boolean;
  public: string | null;
}

/** What a form says of a grant; no pattern: everything. */
export interface Given {
  role: string;
  experiments?: string;
  models?: string;
}

const AT = "gittrack/settings";

export const me = (): Promise<Me> => get(`${AT}/me`, {});
export const ownTokens = async (): Promise<Token[]> => (await get<{ tokens: Token[] }>(`${AT}/own/tokens`, {})).tokens;
export const accounts = (): Promise<{ users: User[]; tokens: Token[] }> => get(`${AT}/accounts`, {});
export const remotes = async (): Promise<Remote[]> => (await get<{ remotes: Remote[] }>(`${AT}/remotes`, {})).remotes;
export const storage = (): Promise<Storage> => get(`${AT}/storage`, {});
export const webhooks = async (): Promise<Webhook[]> => (await get<{ webhooks: Webhook[] }>(`${AT}/webhooks`, {})).webhooks;
export const server = (): Promise<Server> => get(`${AT}/server`, {});

export function audit(search: string, before?: number): Promise<{ lines: Line[]; more: boolean; broken: string }> {
  return get(`${AT}/audit`, { search: search || undefined, before });
}

export function verifyAudit(): Promise<{ line?: number; hash?: string; broken: string }> {
  return get(`${AT}/audit/verify`, {});
}

/** The token itself, which is not told again. */
export function createToken(own: boolean, name: string, given: Given, days: number | undefined): Promise<{ token: string }> {
  return send("POST", own ? `${AT}/own/tokens` : `${AT}/tokens`, { name, ...given, days });
}

export function revokeToken(own: boolean, id: string): Promise<unknown> {
  return send("DELETE", own ? `${AT}/own/tokens` : `${AT}/tokens`, { id });
}

export const addUser = (name: string, password: string, given: Given): Promise<unknown> => send("POST", `${AT}/users`, { name, password, ...given });
export const removeUser = (name: string): Promise<unknown> => send("DELETE", `${AT}/users`, { name });
export const setPassword = (name: string, password: string): Promise<unknown> => send("POST", `${AT}/users/password`, { name, password });
export const give = (name: string, given: Given): Promise<unknown> => send("POST", `${AT}/users/grants`, { name, ...given });

export function take(name: string, grant: Grant): Promise<unknown> {
  const said = { name, role: grant.role ?? "none", experiments: grant.experiments ?? undefined, models: grant.models ?? undefined };
  return send("DELETE", `${AT}/users/grants`, said);
}

export const look = (remote: string): Promise<{ new: number; refused: Record<string, string> }> => send("POST", `${AT}/remotes/look`, { remote });

/** A grant in words, as the command line says it. */
export function described(grant: Grant): string {
  const role = grant.role === null ? "denied" : `${grant.role} of`;
  if (grant.experiments === "*" && grant.models === "*") return `${role} everything`;
  const about = [grant.experiments === null ? "" : `experiments ${grant.experiments}`, grant.models === null ? "" : `models ${grant.models}`];
  return `${role} ${about.filter(Boolean).join(" and ")}`;
}
