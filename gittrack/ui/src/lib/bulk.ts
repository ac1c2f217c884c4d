// The same done to many runs: some at a time, and no more once the server refuses.

import { post, Trouble } from "./api";

const AT_ONCE = 6;
const REFUSED = new Set([0, 401, 403]);

export interface Outcome {
  done: string[];
  /** Of the first that could not be changed. */
  trouble: Error | null;
}

export async function each(runIds: string[], change: (runId: string) => Promise<unknown>, ondone: (count: number) => void): Promise<Outcome> {
  const left = [...runIds].reverse();
  const outcome: Outcome = { done: [], trouble: null };
  async function work(): Promise<void> {
    for (let id = left.pop(); id !== undefined; id = left.pop()) {
      try {
        await change(id);
        outcome.done.push(id);
        ondone(outcome.done.length);
      } catch (error) {
        outcome.trouble ??= error as Error;
        if (error instanceof Trouble && REFUSED.has(error.status)) left.length = 0;
      }
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return outcome;
}

export function setTag(runId: string, key: string, value: string): Promise<unknown> {
  return post("mlflow/runs/set-tag", { run_id: runId, key, value });
}

export function deleteTag(runId: string, key: string): Promise<unknown> {
  return post("mlflow/runs/delete-tag", { run_id: runId, key });
}

export function remove(runId: string): Promise<unknown> {
  return post("mlflow/runs/delete", { run_id: runId });
}

export function restore(runId: string): Promise<unknown> {
  return post("mlflow/runs/restore", { run_id: runId });
}
