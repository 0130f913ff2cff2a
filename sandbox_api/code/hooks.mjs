// Loads a module that exists only in memory.
let main;

export function initialize(given) {
  main = given;
}

export function resolve(specifier, context, next) {
  return specifier === main.url ? { url: main.url, format: 'module', shortCircuit: true } : next(specifier, context);
}

export function load(url, context, next) {
  return url === main.url ? { format: 'module', source: main.source, shortCircuit: true } : next(url, context);
}
