'use strict';
// Values as text, and as JSON if that loses nothing.
const util = require('util');
const { stringify, parse } = JSON; // the code may change the global ones
const { values } = Object;

// Levels of a value that is sent as JSON. The inspector hands over some 300, and else says nothing for ever.
const MOST_DEPTH = 100;

function isDeeper(value, levels) {
  if (typeof value !== 'object' || value === null) return false;
  if (levels === 0) return true;
  for (const inner of values(value)) if (isDeeper(inner, levels - 1)) return true;
  return false;
}

module.exports = (limit) => {
  const clip = (text) =>
    text.length <= limit
      ? text
      : `${text.slice(0, limit / 2)}\n[... ${text.length - limit} characters left out ...]\n${text.slice(-limit / 2)}`;

  function isData(value) {
    // What JSON says in full; of a Map it would say {}.
    if (typeof value === 'number') return Number.isFinite(value);
    if (typeof value !== 'object' || value === null) return ['string', 'boolean', 'object'].includes(typeof value);
    const kind = Object.getPrototypeOf(value);
    return Array.isArray(value) || kind === null || kind === Object.prototype || typeof value.toJSON === 'function';
  }

  function shown(value) {
    const form = { depth: 6, maxArrayLength: 200, maxStringLength: limit, breakLength: 100 };
    const data = { 'text/plain': clip(util.inspect(value, form)) };
    if (isData(value)) {
      try {
        const json = stringify(value);
        const plain = json !== undefined && json.length <= limit ? parse(json) : undefined;
        if (plain !== undefined && !isDeeper(plain, MOST_DEPTH)) data['application/json'] = plain;
      } catch {
        // Circular, or a bigint: the text has it.
      }
    }
    return data;
  }

  return { clip, shown };
};
