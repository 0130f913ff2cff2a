// Run inside pages, as an expression: pages keep nothing of ours between two calls.
(() => {
// A selector that leads to the element again: an id when it is unique, else a path. Shadow roots are entered by `>>`.
const within = (root, element) => {
  const parts = [];
  for (let at = element; at && at.nodeType === 1 && at !== root; at = at.parentElement) {
    if (at.id && root.querySelectorAll('#' + CSS.escape(at.id)).length === 1) {
      parts.unshift('#' + CSS.escape(at.id));
      break;
    }
    const tag = CSS.escape(at.localName);
    const alike = at.parentNode ? [...at.parentNode.children].filter(other => other.localName === at.localName) : [];
    parts.unshift(alike.length > 1 ? tag + ':nth-of-type(' + (alike.indexOf(at) + 1) + ')' : tag);
  }
  return parts.join(' > ');
};
const selectorOf = element => {
  const parts = [];
  for (let at = element; at;) {
    const root = at.getRootNode();
    parts.unshift(within(root, at));
    at = root instanceof ShadowRoot ? root.host : null;
  }
  return parts.join(' >> ');
};
const boxOf = element => {
  const {x, y, width, height} = element.getBoundingClientRect();
  return {x, y, width, height};
};
const shown = element => {
  const box = element.getBoundingClientRect();
  if (box.width < 1 || box.height < 1) return false;
  return element.checkVisibility
    ? element.checkVisibility({checkOpacity: false, checkVisibilityCSS: true})
    : getComputedStyle(element).visibility !== 'hidden';
};
const squeeze = text => (text || '').replace(/\s+/g, ' ').trim().slice(0, 200);

const elements = most => {
  const wanted = 'a[href],button,input:not([type=hidden]),select,textarea,summary,[contenteditable=""],' +
    '[contenteditable=true],[onclick],[tabindex]:not([tabindex="-1"]),' +
    ['button', 'link', 'checkbox', 'radio', 'switch', 'tab', 'menuitem', 'menuitemcheckbox', 'menuitemradio', 'option',
     'combobox', 'textbox', 'searchbox', 'slider', 'spinbutton', 'treeitem'].map(role => `[role=${role}]`).join(',');
  const implied = element => ({a: 'link', button: 'button', select: 'combobox', textarea: 'textbox',
    summary: 'button',
    input: {checkbox: 'checkbox', radio: 'radio', button: 'button', submit: 'button', reset: 'button',
    image: 'button', range: 'slider', number: 'spinbutton', search: 'searchbox'}[element.type] || 'textbox'}
    )[element.localName] || '';
  const nameOf = element => {
    const by = (element.getAttribute('aria-labelledby') || '').split(/\s+/).filter(Boolean)
      .map(id => element.getRootNode().getElementById?.(id)?.textContent || '').join(' ');
    const labels = element.labels ? [...element.labels].map(label => label.innerText).join(' ') : '';
    return squeeze(element.getAttribute('aria-label') || by || labels || element.innerText || element.alt ||
      element.title || element.placeholder || (element.type === 'submit' ? element.value || 'Submit' : ''));
  };
  const found = [];
  let left = 0;
  const walk = root => {
    for (const element of root.querySelectorAll('*')) {
      if (element.matches(wanted) && shown(element)) {
        if (found.length >= most) { left++; continue; }
        const box = boxOf(element);
        const checkable = ['checkbox', 'radio'].includes(element.type);
        found.push({
          tag: element.localName,
          text: squeeze(element.innerText ||
            (['submit', 'button', 'reset'].includes(element.type) ? element.value : '')),
          role: element.getAttribute('role') || implied(element),
          name: nameOf(element),
          type: element.localName === 'input' ? element.type : null,
          value: element.type === 'password' ? null
            : ['input', 'select', 'textarea'].includes(element.localName) ? String(element.value).slice(0, 200) : null,
          placeholder: element.placeholder || null,
          href: element.localName === 'a' ? String(element.href).slice(0, 2000) : null,
          checked: checkable ? element.checked : null,
          disabled: Boolean(element.disabled) || element.getAttribute('aria-disabled') === 'true',
          in_viewport: box.x < innerWidth && box.y < innerHeight && box.x + box.width > 0 && box.y + box.height > 0,
          bounding_box: box,
          selector: selectorOf(element),
        });
      }
      if (element.shadowRoot) walk(element.shadowRoot);
    }
  };
  walk(document);
  return {found, left};
};

const findText = ({keyword, most}) => {
  const wanted = keyword.toLowerCase();
  const found = [];
  const walker = document.createTreeWalker(document.body || document, NodeFilter.SHOW_TEXT);
  while (walker.nextNode() && found.length < most) {
    const node = walker.currentNode, element = node.parentElement;
    if (!element || ['SCRIPT', 'STYLE', 'NOSCRIPT', 'TEMPLATE'].includes(element.tagName)) continue;
    const text = node.data, lower = text.toLowerCase();
    let at = lower.indexOf(wanted);
    for (; at >= 0 && found.length < most; at = lower.indexOf(wanted, at + wanted.length)) {
      const range = document.createRange();
      range.setStart(node, at);
      range.setEnd(node, Math.min(at + wanted.length, text.length));
      const {x, y, width, height} = range.getBoundingClientRect();
      found.push({
        text: squeeze(text.slice(Math.max(0, at - 60), at + wanted.length + 60)),
        tag: element.localName,
        selector: selectorOf(element),
        visible: shown(element),
        bounding_box: {x, y, width, height},
      });
    }
  }
  return found;
};

// A copy of the main part, without what is hidden or is not content; links and pictures get whole addresses.
const mainContent = most => {
  const whole = document.body;
  if (!whole) return '';
  const candidates = [...document.querySelectorAll('main, [role=main], article')]
    .filter(element => element.innerText && element.innerText.trim().length > 200)
    .sort((one, other) => other.innerText.length - one.innerText.length);
  const main = candidates[0] || whole;
  const copy = main.cloneNode(true);
  const originals = main.querySelectorAll('*'), copies = copy.querySelectorAll('*');
  const unwanted = 'script,style,noscript,template,svg,canvas,iframe,nav,aside,dialog:not([open]),' +
    '[aria-hidden=true],input,select,textarea,button' + (main === whole ? ',body > header,body > footer' : '');
  const gone = [];
  originals.forEach((original, index) => {
    const twin = copies[index];
    if (!twin) return;
    if (original.localName === 'a' && original.hasAttribute('href')) twin.setAttribute('href', original.href);
    if (original.localName === 'img') {
      twin.setAttribute('src', original.currentSrc || original.src);
      if (twin.getAttribute('src').startsWith('data:')) gone.push(twin);
    }
    if (original.matches(unwanted) || (original.checkVisibility && !original.checkVisibility())) gone.push(twin);
  });
  gone.forEach(element => element.remove());
  const html = copy.outerHTML;
  return html.length > most ? null : html;
};

return {selectorOf, elements, findText, mainContent};
})()
