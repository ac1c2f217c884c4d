// The colour of a run: the same everywhere and always, and far from that of the next.  Lines are told apart by hue, by
// lightness and by how grey they are; on both themes each has a contrast of at least 3 to what is behind it.  Those that
// are alike all the same, or are to an eye that does not tell red from green, get other dashes.

/** How light lines are (relative luminance, as WCAG counts it): on both themes between 0.128 and 0.3 has contrast 3. */
const LIGHTNESS = [0.145, 0.205, 0.28];
/** How strong they are: chroma in Oklch, in which hues are as far from each other as they look. */
const CHROMA = [0.2, 0.1];
const GOLDEN = 0.618033988749895;
const DASHES = [[], [7, 3], [2, 3], [10, 3, 2, 3], [14, 4], [4, 2, 1, 2]];
/** Closer than this in Oklab, two lines are alike. */
const ALIKE = 0.09;

type Light = [red: number, green: number, blue: number];

function linear(part: number): number {
  return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
}

/** The parts of a hex colour, as light. */
function light(hex: string): Light {
  const part = (at: number): number => linear(Number.parseInt(hex.slice(at, at + 2), 16) / 255);
  return [part(1), part(3), part(5)];
}

/** The byte of a part of a colour, out of light. */
function byte(part: number): number {
  const inside = Math.min(1, Math.max(0, part));
  return Math.round(255 * (inside <= 0.0031308 ? 12.92 * inside : 1.055 * inside ** (1 / 2.4) - 0.055));
}

export function luminance(hex: string): number {
  return bright(light(hex));
}

/** Relative luminance, as WCAG has it. */
function bright([red, green, blue]: Light): number {
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** The bytes of the colour at a place in Oklch, in the direction of a hue: as strong as wanted, or as there is. */
function fromOklch(lightness: number, chroma: number, a: number, b: number): [red: number, green: number, blue: number] {
  for (let strong = chroma; ; strong -= 0.01) {
    const long = (lightness + strong * (0.3963377774 * a + 0.2158037573 * b)) ** 3;
    const middle = (lightness - strong * (0.1055613458 * a + 0.0638541728 * b)) ** 3;
    const short = (lightness - strong * (0.0894841775 * a + 1.291485548 * b)) ** 3;
    const red = 4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short;
    const green = -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short;
    const blue = -0.0041960863 * long - 0.7034186147 * middle + 1.707614701 * short;
    const inside = red >= 0 && red <= 1 && green >= 0 && green <= 1 && blue >= 0 && blue <= 1;
    if (inside || strong <= 0.01) return [byte(red), byte(green), byte(blue)];
  }
}

/** The colour of a hue that is so light. */
function shade(hue: number, chroma: number, wanted: number): string {
  const [a, b] = [Math.cos(2 * Math.PI * hue), Math.sin(2 * Math.PI * hue)];
  let [low, high] = [0.3, 0.8];
  for (let step = 0; step < 9; step += 1) {
    const middle = (low + high) / 2;
    const [red, green, blue] = fromOklch(middle, chroma, a, b);
    if (bright([linear(red / 255), linear(green / 255), linear(blue / 255)]) < wanted) low = middle;
    else high = middle;
  }
  const parts = fromOklch((low + high) / 2, chroma, a, b);
  return `#${parts.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}

const known = new Map<string, string>();
const MOST_KNOWN = 20_000;

/** The colour that the id of a run decides. */
export function colour(runId: string): string {
  const had = known.get(runId);
  if (had !== undefined) return had;
  let hash = 2166136261;
  for (let at = 0; at < runId.length; at += 1) hash = Math.imul(hash ^ runId.charCodeAt(at), 16777619);
  hash >>>= 0;
  const kind = (hash >>> 8) % (LIGHTNESS.length * CHROMA.length);
  const found = shade((hash * GOLDEN) % 1, CHROMA[kind % 2] ?? 1, LIGHTNESS[kind >> 1] ?? 0.2);
  if (known.size >= MOST_KNOWN) known.clear();
  known.set(runId, found);
  return found;
}

/** The colour of one of a few that stand beside each other. */
export function spread(index: number): string {
  const lightness = LIGHTNESS[(index + 1) % LIGHTNESS.length] ?? 0.2;
  return shade((index * GOLDEN * GOLDEN + 0.7) % 1, CHROMA[index % 2] ?? 1, lightness);
}

/** The same colour, see-through. */
export function faint(of: string, alpha: number): string {
  return of && `${of}${Math.round(alpha * 255).toString(16).padStart(2, "0")}`;
}

/** What is left of light for an eye without green, and without red (Machado, Oliveira and Fernandes, 2009). */
const EYES = [
  [1, 0, 0, 0, 1, 0, 0, 0, 1],
  [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.01182, 0.04294, 0.968881],
  [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
];

function seen([red, green, blue]: Light, eye: number[]): Light {
  const row = (at: number): number => Math.max(0, (eye[at] ?? 0) * red + (eye[at + 1] ?? 0) * green + (eye[at + 2] ?? 0) * blue);
  return [row(0), row(3), row(6)];
}

/** Where light is in Oklab, in which distances are as they are seen. */
function oklab([red, green, blue]: Light): Light {
  const long = Math.cbrt(0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue);
  const middle = Math.cbrt(0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue);
  const short = Math.cbrt(0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue);
  return [
    0.2104542553 * long + 0.793617785 * middle - 0.0040720468 * short,
    1.9779984951 * long - 2.428592205 * middle + 0.4505937099 * short,
    0.0259040371 * long + 0.7827717662 * middle - 0.808675766 * short,
  ];
}

/** A dash for each line: those that are alike, or are to some eye, have different ones, as far as there are. */
export function dashes(colours: string[], toAnyEye: boolean): number[][] {
  const eyes = toAnyEye ? EYES : EYES.slice(0, 1);
  const places = colours.map((one) => eyes.map((eye) => oklab(seen(light(one), eye))));
  const chosen: number[] = [];
  places.forEach((own, at) => {
    const times = DASHES.map(() => 0);
    for (let other = 0; other < at; other += 1) {
      const alike = own.some((place, eye) => {
        const [a, b, c] = places[other]?.[eye] ?? [1, 1, 1];
        return Math.hypot(place[0] - a, place[1] - b, place[2] - c) < ALIKE;
      });
      if (alike) times[chosen[other] ?? 0] = (times[chosen[other] ?? 0] ?? 0) + 1;
    }
    chosen.push(times.indexOf(Math.min(...times)));
  });
  return chosen.map((one) => DASHES[one] ?? []);
}
