'use strict';
// Runs code as `node --eval` does, and writes the value of its last expression to `value.json`. The code is in
// `job.json`; the argument names the folder of both.
const { readFileSync, writeFileSync } = require('fs');
const Module = require('module');
const path = require('path');
const { pathToFileURL } = require('url');
const { isNativeError } = require('util').types;
const vm = require('vm');

const { stringify, parse } = JSON; // the code may change the global ones
const [, folder] = process.argv.splice(1);
const { code, parser, limit } = parse(readFileSync(path.join(folder, 'job.json'), 'utf8'));
const { exportingValue } = require('./syntax.js')(parser);
const { shown } = require('./values.js')(limit);
const UNSETTLED = 13; // Node.js's own code for this end

function report(value) {
  if (value !== undefined) writeFileSync(path.join(folder, 'value.json'), stringify(shown(value)));
}

function provide(variables) {
  for (const [name, value] of Object.entries(variables)) {
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true, enumerable: false });
  }
}

function compiled() {
  try {
    const options = { filename: '[eval]', importModuleDynamically: vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER };
    return new vm.Script(code, options);
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

function runScript(script) {
  const own = new Module('[eval]');
  own.paths = Module._nodeModulePaths(process.cwd());
  provide({ module: own, exports: own.exports, __filename: '[eval]', __dirname: '.' });
  report(script.runInThisContext());
}

async function runModule() {
  let settled = false;
  process.once('beforeExit', () => {
    if (settled) return;
    process.stderr.write('Warning: Detected unsettled top-level await\n');
    process.exitCode ??= UNSETTLED;
  });
  try {
    const source = exportingValue(code);
    const main = { url: pathToFileURL(path.resolve('[eval1]')).href, source: source ?? code };
    const hooks = await import('./hooks.mjs');
    hooks.initialize(main);
    if (Module.registerHooks) Module.registerHooks(hooks);
    else Module.register(pathToFileURL(path.join(__dirname, 'hooks.mjs')), { data: main });
    const done = await import(main.url);
    if (source !== null) report(done.default);
  } finally {
    settled = true;
  }
}

process.on('uncaughtExceptionMonitor', (error) => {
  // Hide this file's own stack frames.
  const lines = isNativeError(error) ? String(error.stack).split('\n') : [];
  let end = lines.findIndex((line) => line.includes(__filename));
  if (end < 0) return;
  while (/^\s+at .*\bnode:/.test(lines[end - 1])) end -= 1;
  Reflect.defineProperty(error, 'stack', { value: lines.slice(0, end).join('\n'), configurable: true, writable: true });
});

// Modules have no `require`, but code for both worlds is common.
provide({ require: Module.createRequire(path.resolve('script.js')) });
const script = compiled();
if (script) runScript(script);
else runModule();
