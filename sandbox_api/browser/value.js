// Called on what an evaluated expression gave: functions are called, promises awaited, the value comes as JSON.
(async function (most) {
let value = typeof this === 'function' ? this() : this;
value = await value;
const kind = typeof value;
if (value instanceof Node) throw new TypeError('the value is a DOM node; return its text or attributes instead');
if (value === globalThis) throw new TypeError('the value is the window; return one of its properties instead');
if (kind === 'function' || kind === 'symbol') throw new TypeError('the value is a ' + kind + '; it cannot be returned');
if (kind === 'bigint' || (kind === 'number' && !Number.isFinite(value))) return JSON.stringify(String(value));
const text = JSON.stringify(value, (key, part) => part instanceof Map ? Object.fromEntries(part)
  : part instanceof Set ? [...part] : typeof part === 'bigint' ? String(part)
  : part instanceof Error ? String(part) : part);
if (text !== undefined && text.length > most) return null;
return text === undefined ? 'null' : text;
})
