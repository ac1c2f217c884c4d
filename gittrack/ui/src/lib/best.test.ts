import { expect, test } from "vitest";

import { best, better } from "./best";

test("what is better, as far as a name tells", () => {
  const less = ["loss", "val/loss", "train_loss", "valLoss", "valloss", "RMSE", "training_mean_squared_error", "latency_ms", "brier_score", "negative_log_likelihood", "log_loss"];
  const more = ["acc", "val/accuracy", "trainAcc", "test_roc_auc", "f1", "macro.f1-score", "training_score", "precision@10", "r2", "neg_mean_squared_error"];
  const unknown = ["glossary", "theta", "grad_norm", "epoch", "system/cpu_time", "lr", "learning_rate", "accuracy_loss", "n", "", "accent", "errand"];
  for (const name of less) expect([name, better(name)]).toEqual([name, "less"]);
  for (const name of more) expect([name, better(name)]).toEqual([name, "more"]);
  for (const name of unknown) expect([name, better(name)]).toEqual([name, null]);
});

test("the best value of a metric, unless it is anyone's guess", () => {
  expect(best("val/loss", [2, 1, null, "NaN", 1])).toBe(1);
  expect(best("accuracy", [0.2, 0.9, "NaN", null])).toBe(0.9);
  expect(best("grad_norm", [1, 2])).toBe(null);
  for (const none of [[], [null, "NaN"], [1], [1, 1]]) expect(best("accuracy", none)).toBe(null);
});
