// A verifier of proofs in TypeScript, from docs/proof-format.md alone.
//
//   python -m toploc.conformance --only proofs node docs/examples/verify.ts
//
// It reads a case a line on stdin and writes an answer a line on stdout. Node.js 22.18 or later runs it as it is;
// from 22.6 on with --experimental-strip-types.

import { createHash } from "node:crypto";
import { createInterface } from "node:readline";

const PRIME = 65497;
const DECOYS = 256;
const FALSE_ALARM = 1e-9;
const NOTHING_EQUAL = 2 ** 64;
const MANTISSA_BITS = { bfloat16: 7, float16: 10 };

type Dtype = keyof typeof MANTISSA_BITS;
type Points = { indices: number[]; patterns: number[] };
type Proof = { data: Buffer; modulus: number; coefficients: number[] };
type Bounds = { mismatches: number; mantissa_mean: number; mantissa_median: number; decoy_hits?: number | null };
type Decoding = { text?: unknown; hex?: string; topk: number };
type Chunk = { activations: string; dtype: Dtype | "float32"; topk: number };
type Answer = {
  proofs: unknown[];
  chunks: Points[];
  dtype: Dtype;
  topk: number;
  bounds: Bounds;
  secret: string;
};

class MalformedProof extends Error {}
class Unprovable extends Error {}

// Section 1: the k elements of largest magnitude, the lower index first among equals.

function pointsOf(patterns: number[], topk: number): Points {
  if (patterns.length < topk) throw new Unprovable();
  const magnitude = (index: number) => patterns[index] & 0x7fff;
  const order = patterns.map((_, index) => index).sort((a, b) => magnitude(b) - magnitude(a) || a - b);
  const indices = order.slice(0, topk).sort((a, b) => a - b);
  return { indices, patterns: indices.map((index) => patterns[index]) };
}

function patternsOf(activations: Buffer, dtype: Dtype | "float32"): number[] {
  const size = dtype === "float32" ? 4 : 2;
  const patterns = [];
  for (let place = 0; place < activations.length; place += size) {
    if (size === 2) {
      patterns.push(activations.readUInt16BE(place));
    } else {
      const bits = activations.readUInt32BE(place);
      const toEven = 0x7fff + ((bits >>> 16) & 1);
      patterns.push(Math.floor((bits + toEven) / 65536));
    }
  }
  return patterns;
}

// Section 2: the polynomial through the points. Products stay below 2^32, so doubles are exact.

function inverse(value: number): number {
  let result = 1;
  for (let power = PRIME - 2, base = value; power > 0; power >>>= 1) {
    if (power & 1) result = (result * base) % PRIME;
    base = (base * base) % PRIME;
  }
  return result;
}

function modulusFloor(topk: number): number {
  return Math.max(topk, PRIME - (topk * (topk - 1)) / 2);
}

function modulusOf(indices: number[]): number {
  for (let modulus = PRIME; modulus >= modulusFloor(indices.length); modulus--) {
    if (new Set(indices.map((index) => index % modulus)).size === indices.length) return modulus;
  }
  throw new Unprovable();
}

/** Newton's divided differences, then from Newton's form to ascending powers. */
function interpolate(x: number[], y: number[]): number[] {
  const differences = y.map((value) => value % PRIME);
  for (let step = 1; step < x.length; step++) {
    for (let i = x.length - 1; i >= step; i--) {
      const rise = differences[i] - differences[i - 1] + PRIME;
      const run = (x[i] - x[i - step] + PRIME) % PRIME;
      differences[i] = ((rise % PRIME) * inverse(run)) % PRIME;
    }
  }
  let coefficients: number[] = [];
  for (let i = x.length - 1; i >= 0; i--) {
    const shifted = [0, ...coefficients];
    coefficients.forEach((value, power) => {
      shifted[power] = (shifted[power] + value * (PRIME - x[i])) % PRIME;
    });
    shifted[0] = (shifted[0] + differences[i]) % PRIME;
    coefficients = shifted;
  }
  return coefficients.slice(0, x.length);
}

function encode({ indices, patterns }: Points): Buffer {
  const modulus = modulusOf(indices);
  const words = [modulus, ...interpolate(indices.map((index) => index % modulus), patterns)];
  const data = Buffer.alloc(2 * words.length);
  words.forEach((word, place) => data.writeUInt16BE(word, 2 * place));
  return data;
}

function evaluate(coefficients: number[], x: number): number {
  return coefficients.reduceRight((value, coefficient) => (value * x + coefficient) % PRIME, 0);
}

// Section 3: bytes. What is malformed has no figures.

function decode(sent: unknown, topk: number): Proof {
  const size = 2 + 2 * topk;
  let data: Buffer;
  if (typeof sent === "string") {
    // By code points: a character beyond 16 bits is one.
    if ([...sent].length !== 4 * Math.ceil(size / 3)) throw new MalformedProof("length");
    data = Buffer.from(sent, "base64");
    // Node skips what is no base64; only canonical text comes back as it was.
    if (data.length !== size || data.toString("base64") !== sent) throw new MalformedProof("base64");
  } else if (Buffer.isBuffer(sent)) {
    if (sent.length !== size) throw new MalformedProof("length");
    data = sent;
  } else {
    throw new MalformedProof("type");
  }
  const words = Array.from({ length: topk + 1 }, (_, place) => data.readUInt16BE(2 * place));
  const [modulus, ...coefficients] = words;
  if (modulus < modulusFloor(topk) || modulus > PRIME) throw new MalformedProof("modulus");
  if (coefficients.some((coefficient) => coefficient >= PRIME)) throw new MalformedProof("coefficient");
  return { data, modulus, coefficients };
}

// Section 5: decoys.

function decoysOf(proof: Proof, residues: number[], secret: Buffer): number[] {
  const count = Math.min(DECOYS, proof.modulus - residues.length);
  const length = Buffer.alloc(8);
  length.writeBigUInt64BE(BigInt(secret.length));
  const message = Buffer.concat([Buffer.from("toploc decoys 1"), length, secret, proof.data]);
  const words = createHash("shake256", { outputLength: 4 * count }).update(message).digest();
  const taken = new Set(residues);
  const positions = [];
  for (let i = 0; i < count; i++) {
    let x = words.readUInt32LE(4 * i) % proof.modulus;
    while (taken.has(x)) x = (x + 1) % proof.modulus;
    taken.add(x);
    positions.push(x);
  }
  return positions;
}

/** Patterns below the prime that have one of these exponents. */
function patternsWith(exponents: Set<number>, bits: number): number {
  const size = 2 ** bits;
  let count = 0;
  for (const exponent of exponents) {
    const negative = 0x8000 + exponent * size;
    count += size + Math.min(size, Math.max(0, PRIME - negative));
  }
  return count;
}

/** The smallest b at which a binomial variable exceeds b with a chance of at most 1e-9. */
function decoyBound(decoys: number, patterns: number, topk: number, modulus: number): number {
  const chance = patterns / PRIME + topk / Math.max(modulus - topk, 1);
  if (chance >= 1) return decoys;
  const logFactorial = [0];
  for (let n = 1; n <= decoys; n++) logFactorial.push(logFactorial[n - 1] + Math.log(n));
  let tail = 0;
  for (let hits = decoys; hits > 0; hits--) {
    const ways = logFactorial[decoys] - logFactorial[hits] - logFactorial[decoys - hits];
    tail += Math.exp(ways + hits * Math.log(chance) + (decoys - hits) * Math.log1p(-chance));
    if (tail > FALSE_ALARM) return hits;
  }
  return 0;
}

// Section 4: the comparison of one chunk.

function compare(proof: Proof, own: Points, dtype: Dtype, bounds: Bounds, secret: Buffer) {
  const bits = MANTISSA_BITS[dtype];
  const exponentOf = (pattern: number) => (pattern & 0x7fff) >> bits;
  const mantissaOf = (pattern: number) => pattern & (2 ** bits - 1);
  const residues = own.indices.map((index) => index % proof.modulus);
  const claimed = residues.map((x) => evaluate(proof.coefficients, x));
  const mismatches = claimed.filter((c, i) => c >> bits !== own.patterns[i] >> bits).length;
  const differences = own.patterns
    .map((v, i) => ({ v, c: claimed[i] }))
    .filter(({ v, c }) => exponentOf(v) === exponentOf(c))
    .map(({ v, c }) => Math.abs(mantissaOf(v) - mantissaOf(c)))
    .sort((a, b) => a - b);
  const equal = differences.length;
  const mean = equal ? differences.reduce((sum, d) => sum + d, 0) / equal : NOTHING_EQUAL;
  const median = equal ? differences[Math.floor(equal / 2)] : NOTHING_EQUAL;
  const exponents = new Set(own.patterns.map(exponentOf));
  const decoys = decoysOf(proof, residues, secret);
  const hits = decoys.filter((x) => exponents.has(exponentOf(evaluate(proof.coefficients, x)))).length;
  const topk = own.patterns.length;
  const derived = decoyBound(decoys.length, patternsWith(exponents, bits), topk, proof.modulus);
  const most = bounds.decoy_hits ?? derived;
  const reasons = [];
  if (mismatches > bounds.mismatches) reasons.push("mismatches");
  if (mean > bounds.mantissa_mean) reasons.push("mantissa_mean");
  if (median > bounds.mantissa_median) reasons.push("mantissa_median");
  if (hits > most) reasons.push("decoy_hits");
  if (exponents.has(2 ** (15 - bits) - 1)) reasons.push("non_finite");
  return {
    mismatches,
    exponent_mismatches: topk - equal,
    mantissa_mean: mean,
    mantissa_median: median,
    decoy_hits: hits,
    decoys: decoys.length,
    decoy_bound: most,
    reasons,
  };
}

function verify({ proofs, chunks, dtype, topk, bounds, secret }: Answer) {
  if (proofs.length !== chunks.length) throw new MalformedProof("count");
  const decoded = proofs.map((proof) => decode(proof, topk));
  const key = Buffer.from(secret, "hex");
  const figures = chunks.map((own, i) => compare(decoded[i], own, dtype, bounds, key));
  return { passed: figures.length > 0 && figures.every(({ reasons }) => reasons.length === 0), chunks: figures };
}

// The door: docs/conformance.md.

const QUESTIONS: Record<string, (asked: any) => object> = {
  decode: ({ text, hex, topk }: Decoding) => {
    const { modulus, coefficients } = decode(hex === undefined ? text : Buffer.from(hex, "hex"), topk);
    return { modulus, coefficients };
  },
  points: ({ activations, dtype, topk }: Chunk) => pointsOf(patternsOf(Buffer.from(activations, "hex"), dtype), topk),
  encode: (points: Points) => ({ hex: encode(points).toString("hex") }),
  verdict: verify,
};

function answer(question: string, asked: unknown): object {
  try {
    return QUESTIONS[question](asked);
  } catch (error) {
    if (error instanceof MalformedProof) return { malformed: error.message };
    if (error instanceof Unprovable) return { unprovable: true };
    throw error;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, question, input } = JSON.parse(line);
  console.log(JSON.stringify({ id, output: answer(question, input) }));
}
