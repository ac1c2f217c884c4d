// Which of several values of a metric is the best, as far as its name tells: of a name that does not, none is.

import type { Value } from "./api";

const words = (text: string): Set<string> => new Set(text.split(" "));
const LESS = words(
  "err errors mae mse rmse mape smape msle rmsle wer cer eer ece fid nll bpc bpb xent brier regret fpr fnr aic bic perplexity ppl latency time seconds duration",
);
const GREATER = words(
  "acc auc auroc auprc f1 fbeta precision recall sensitivity specificity tpr tnr ap map map50 map95 ndcg mrr bleu rouge rouge1 rouge2 rougel meteor chrf r2 iou miou dice psnr ssim kappa mcc reward likelihood elbo throughput",
);
const NEITHER = words("step steps epoch epochs lr learning");
const LOSS = /(loss|losses|error)$/;

/** Whether less or more of a metric is better; null: who knows. */
export function better(metric: string): "less" | "more" | null {
  const said = metric.replace(/([a-z])(?=[A-Z])/g, "$1 ").toLowerCase().split(/[^a-z0-9]+/);
  if (metric.startsWith("system/") || said.some((word) => NEITHER.has(word))) return null;
  const less = said.some((word) => LESS.has(word) || LOSS.test(word));
  const more = said.some((word) => GREATER.has(word) || word.endsWith("accuracy")) || (!less && said.includes("score"));
  if (less === more) return null;
  return less === said.some((word) => word === "neg" || word === "negative") ? "more" : "less";
}

/** The best value; null if there is nothing to choose from, or nobody knows. */
export function best(metric: string, values: Value[]): number | null {
  const way = better(metric);
  if (way === null) return null;
  let least = Infinity;
  let most = -Infinity;
  for (const value of values) {
    if (typeof value !== "number") continue;
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return least < most ? (way === "less" ? least : most) : null;
}
