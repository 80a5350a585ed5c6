// Characters of a DiceBear style, each with several expressions, a JSON line each on standard output.
//
//   node art_dicebear.mjs FOLDER STYLE COUNT EXPRESSIONS PART,PART,...
//
// FOLDER holds node_modules/@dicebear/{core,STYLE}. Character i is what the seed STYLE-i gives; only
// the parts that are listed, and differ from one expression to the next, are drawn again.

import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, style, count, expressions, parts] = process.argv.slice(2);
const free = new Set(parts.split(','));
const load = (name) =>
  import(pathToFileURL(path.resolve(folder, 'node_modules/@dicebear', name, 'lib/index.js')));
const { createAvatar } = await load('core');
const design = await load(style);
const settings = design.schema.properties;

// Options that pin what a character is made of: null is a part that it does not have.
function pinned(made) {
  const options = { backgroundColor: ['transparent'] };
  for (const [part, value] of Object.entries(made)) {
    if (free.has(part) || !(part in settings)) continue;
    const probability = `${part}Probability`;
    if (part.endsWith('Color')) {
      if (value) options[part] = [String(value).replace('#', '')];
    } else if (value === undefined || value === null) {
      if (probability in settings) options[probability] = 0;
    } else {
      options[part] = [value];
      if (probability in settings) options[probability] = 100;
    }
  }
  return options;
}

for (let i = 0; i < Number(count); i++) {
  const seed = `${style}-${i}`;
  const made = createAvatar(design, { seed, backgroundColor: ['transparent'] }).toJson().extra;
  const options = pinned(made);
  const drawings = Array.from({ length: Number(expressions) }, (_, n) =>
    createAvatar(design, { ...options, seed: `${seed}-v${n}` }).toString(),
  );
  process.stdout.write(JSON.stringify({ id: seed, drawings }) + '\n');
}
