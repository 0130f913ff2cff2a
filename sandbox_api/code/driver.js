'use strict';
// Keeps one JavaScript session: receives code as JSON lines on a channel of its own, and answers there. Standard
// output and error stay the code's. The inspector evaluates in its REPL mode: `let` and `const` may be declared again,
// `await` works at the top level, and the value of the last expression comes back.
const inspector = require('inspector');
const net = require('net');
const path = require('path');
const util = require('util');
const vm = require('vm');
const { createRequire } = require('module');

const { SANDBOX_CHANNEL_FD, SANDBOX_TEXT_LIMIT, SANDBOX_PARSER } = process.env;
for (const name of Object.keys(process.env)) if (/^SANDBOX_(CHANNEL_|TEXT_LIMIT|PARSER)/.test(name)) delete process.env[name];
const { IMPORT, asScript } = require('./syntax.js')(SANDBOX_PARSER);
const { clip, shown } = require('./values.js')(Number(SANDBOX_TEXT_LIMIT));
const channel = new net.Socket({ fd: Number(SANDBOX_CHANNEL_FD), readable: true, writable: true });
const { stringify, parse } = JSON; // the code may change the global ones
const exit = process.exit.bind(process);
const { stdout, stderr } = process;
const { write } = require('stream').Writable.prototype;

function enter(cwd) {
  process.chdir(cwd);
  const file = path.join(cwd, 'session.js');
  const hidden = (name, value) =>
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true, enumerable: false });
  hidden('require', createRequire(file));
  const options = { filename: file };
  const loader = vm.constants && vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER;
  if (loader) options.importModuleDynamically = loader;
  hidden(IMPORT, new vm.Script('(name, options) => import(name, options)', options).runInThisContext());
}

function described(error) {
  if (!util.types.isNativeError(error)) {
    const text = clip(util.inspect(error));
    return { ename: 'Uncaught', evalue: text, traceback: [`Uncaught ${text}`] };
  }
  const own = ({}).constructor.getOwnPropertyNames(error).includes('stack') ? String(error.stack) : String(error);
  const lines = own.split('\n').filter((line) => !/\(?(?:node:|.*[\\/]driver\.js:)/.test(line) || !/^\s+at /.test(line));
  return { ename: String(error.name), evalue: clip(String(error.message)), traceback: clip(lines.join('\n')).split('\n') };
}

const session = new inspector.Session();
session.connect();
// The code sees nothing of these: the inspector keeps them by an id.
globalThis.__sandboxDriver = { shown, described };
let helper;
session.post('Runtime.evaluate', { expression: '__sandboxDriver' }, (_, answer) => (helper = answer.result.objectId));
delete globalThis.__sandboxDriver;

let current = 0;
let count = 0;

function call(method, remote, done) {
  // Inspector values become plain ones by our functions, called beside the code's own objects.
  const { objectId, value, unserializableValue } = remote;
  const argument = objectId ? { objectId } : unserializableValue ? { unserializableValue } : { value };
  session.post(
    'Runtime.callFunctionOn',
    {
      objectId: helper,
      functionDeclaration: `function (value) { return this.${method}(value) }`,
      arguments: [argument],
      returnByValue: true,
    },
    (problem, answer) => done(problem || answer.exceptionDetails ? null : answer.result.value),
  );
}

const interrupted = { ename: 'Interrupted', evalue: 'the execution was interrupted', traceback: ['Interrupted'] };

function answer(id, body) {
  if (id !== current) return;
  current = 0;
  const line = stringify({ id, count, ...body }) + '\n';
  whenWritten(() => channel.write(line));
}

function whenWritten(done) {
  // What a full pipe does not take, Node.js writes later: an answer must not overtake it. What timers go on writing is
  // behind these empty pieces, and not waited for; nor is what the code itself holds back.
  const full = [stdout, stderr].filter((stream) => stream.writable && stream.writableLength > 0 && !stream.writableCorked);
  let left = full.length;
  if (!left) done();
  for (const stream of full) write.call(stream, '', () => --left || done());
}

function evaluated(id, problem, outcome) {
  if (problem) return answer(id, { error: interrupted });
  if (outcome.exceptionDetails) {
    const thrown = outcome.exceptionDetails.exception;
    if (!thrown) return answer(id, { error: interrupted });
    return call('described', thrown, (error) =>
      answer(id, { error: error ?? { ename: 'Error', evalue: thrown.description ?? '', traceback: [] } }),
    );
  }
  if (outcome.result.type === 'undefined') return answer(id, {});
  return call('shown', outcome.result, (data) =>
    answer(id, { data: data ?? { 'text/plain': outcome.result.description ?? '' } }),
  );
}

// SIGINT stops a script under `breakOnSigint` even in a loop without end. What only waits has no script to stop.
const guarded = new vm.Script('globalThis.__sandboxRun()', { filename: __filename });

// V8 lets go of the promise that it evaluates to. If that is settled at once, and memory is collected before its reaction
// runs, the process ends ("Invoke in DisallowJavascriptExecutionScope"): so it always waits once, and the value stays.
const WAIT = '\n;const {} = await {};';

function execute({ id, code, cwd }) {
  current = id;
  try {
    if (cwd) enter(cwd);
  } catch ({ code, message }) {
    return answer(id, { refused: { code: String(code), message } });
  }
  count += 1;
  try {
    const expression = asScript(code) + WAIT;
    let started = false;
    Object.defineProperty(globalThis, '__sandboxRun', {
      configurable: true,
      value: () => {
        delete globalThis.__sandboxRun;
        started = true;
        session.post(
          'Runtime.evaluate',
          { expression, replMode: true, awaitPromise: true, objectGroup: 'code' },
          (problem, outcome) => evaluated(id, problem, outcome),
        );
      },
    });
    guarded.runInThisContext({ breakOnSigint: true });
    if (!started) answer(id, { error: interrupted });
  } catch (error) {
    answer(id, { error: error && error.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED' ? interrupted : described(error) });
  }
}

process.on('SIGINT', () => answer(current || -1, { error: interrupted }));
for (const event of ['uncaughtException', 'unhandledRejection']) {
  // A failing timer does not end the session.
  process.on(event, (error) => stderr.write(`Uncaught ${util.inspect(error)}\n`));
}

let received = '';
channel.setEncoding('utf8');
channel.on('data', (text) => {
  received += text;
  let end;
  while ((end = received.indexOf('\n')) >= 0) {
    const line = received.slice(0, end);
    received = received.slice(end + 1);
    execute(parse(line));
  }
});
channel.on('close', () => exit(0));
channel.on('error', () => exit(0));
