'use strict';
// Rewrites code by its syntax tree. Without acorn, or if acorn cannot parse it, the code stays as it is and the engine
// reports the error.
const IMPORT = '__sandboxImport';

function edited(code, edits) {
  let text = code;
  for (const { start, end, by } of edits.sort((one, other) => other.start - one.start)) {
    text = text.slice(0, start) + by + text.slice(end);
  }
  return text;
}

function* nodes(root) {
  const left = [root]; // no recursion: long expressions are deep
  while (left.length) {
    const node = left.pop();
    if (typeof node.type === 'string') yield node;
    for (const inner of Object.values(node)) if (inner && typeof inner === 'object') left.push(inner);
  }
}

function declarations(node, code) {
  // An import statement as declarations. Lines keep their numbers.
  const text = (part) => code.slice(part.start, part.end);
  const attributes = (node.attributes ?? []).map(text).join(', ');
  const loaded = `await ${IMPORT}(${text(node.source)}${attributes && `, { with: { ${attributes} } }`})`;
  const names = [];
  const patterns = [];
  for (const { type, imported, local } of node.specifiers) {
    if (type === 'ImportNamespaceSpecifier') patterns.push(local.name);
    else names.push(`${type === 'ImportDefaultSpecifier' ? 'default' : text(imported)}: ${local.name}`);
  }
  if (names.length) patterns.push(`{ ${names.join(', ')} }`);
  const statements = patterns.map((pattern) => `const ${pattern} = ${loaded};`).join(' ') || `void ${loaded};`;
  return statements + '\n'.repeat(text(node).split('\n').length - 1);
}

module.exports = (parser) => {
  function parsed(code, options) {
    if (!parser) return null;
    try {
      return require(parser).parse(code, { ecmaVersion: 'latest', allowHashBang: true, ...options });
    } catch {
      return null;
    }
  }

  // Code for a script, which has no imports: the function IMPORT stands in for them.
  function asScript(code) {
    if (!code.includes('import')) return code;
    const tree = parsed(code, { sourceType: 'script', allowAwaitOutsideFunction: true, allowImportExportEverywhere: true });
    if (!tree) return code;
    const edits = [];
    for (const node of tree.body) {
      if (node.type === 'ImportDeclaration') edits.push({ start: node.start, end: node.end, by: declarations(node, code) });
    }
    for (const { type, start } of nodes(tree)) {
      if (type === 'ImportExpression') edits.push({ start, end: start + 'import'.length, by: IMPORT });
    }
    return edited(code, edits);
  }

  // Code for a module that exports the value of its last expression by default; null if there is no such value.
  function exportingValue(code) {
    const tree = parsed(code, { sourceType: 'module' });
    const last = tree?.body.at(-1);
    if (last?.type !== 'ExpressionStatement' || tree.body.some(({ type }) => type === 'ExportDefaultDeclaration')) return null;
    const value = code.slice(last.expression.start, last.expression.end);
    return edited(code, [{ start: last.start, end: last.end, by: `export default (${value});` }]);
  }

  return { IMPORT, asScript, exportingValue };
};
