// Makes notifier/web/notifier-inbox.js of web/inbox: one module, minified. `make web` runs it.
// The file must stay below 20,000 bytes; `make web` says how many it has.
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { build, transform } = createRequire(join(root, ".peers/node_modules/esbuild/"))("esbuild");

const css = {
  name: "css",
  setup(plugged) {
    plugged.onLoad({ filter: /\.css$/ }, async ({ path }) => {
      const { code } = await transform(await readFile(path, "utf8"), { loader: "css", minify: true, target: "chrome123" });
      return { contents: compact(code), loader: "text" };
    });
  },
};

/** What the minifier leaves alone: the values and names of our own custom properties (`--_name`). */
function compact(code) {
  return code.trim().replace(/(?<=--[\w-]+): /g, ":").replace(/, /g, ",").replace(/--_[\w-]+/g, short);
}

const names = new Map();
function short(name) {
  if (!names.has(name)) names.set(name, `--${names.size.toString(36)}`);
  return names.get(name);
}

const { outputFiles } = await build({
  entryPoints: [join(root, "web/inbox/element.js")],
  bundle: true,
  write: false,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  // What begins with an underscore is ours alone; a list keeps names the same from build to build.
  mangleProps: /^_[a-z]/i,
  banner: { js: "/* Apache-2.0 */" },
  plugins: [css],
});
const code = outputFiles[0].text;
await writeFile(process.argv[2] ?? join(root, "notifier/web/notifier-inbox.js"), code);
console.log(`notifier-inbox.js: ${Buffer.byteLength(code)} bytes, ${gzipSync(code, { level: 9 }).length} on the wire`);
