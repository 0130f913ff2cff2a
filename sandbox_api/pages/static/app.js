"use strict";

// Every address is relative: the sandbox may lie behind a path prefix.
const TABS = [
  { id: "browser", title: "Browser", needs: "vnc", page: "vnc/index.html" },
  { id: "terminal", title: "Terminal", needs: "shell", page: "terminal" },
  { id: "files", title: "Files", needs: "file", build: buildFiles },
  { id: "jupyter", title: "Jupyter", needs: "jupyter", page: "jupyter" },
  { id: "code", title: "VS Code", needs: "code-server", page: "code-server/" },
  { id: "api", title: "API", page: "v1/docs" },
  { id: "status", title: "Status", build: buildStatus },
];
const REFRESH_MS = 4000;
const PICTURES = /\.(png|jpe?g|gif|webp|svg|ico|bmp)$/i;
const PREVIEW_BYTES = 1 << 20;

let sandbox = null;
let selected = null;
let problem = "";

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

class ApiError extends Error {
  constructor(status, answer) {
    super(answer?.message || `the sandbox answered with status ${status}`);
    this.status = status;
  }
}

async function api(path, body, options = {}) {
  if (body !== undefined) {
    const form = body instanceof FormData;
    options = {
      method: "POST",
      body: form ? body : JSON.stringify(body),
      headers: form ? {} : { "Content-Type": "application/json" },
    };
  }
  const answer = await fetch(path, options);
  const content = await answer.json().catch(() => null);
  if (answer.status === 401) signIn();
  if (!answer.ok) throw new ApiError(answer.status, content);
  return content;
}

// Signing in: the key is exchanged for a one-time ticket, and that for a cookie that scripts cannot read.

function signIn() {
  const dialog = document.getElementById("sign-in");
  if (!dialog.open) dialog.showModal();
}

document.querySelector("#sign-in form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const key = form.querySelector("input").value.trim();
  const isToken = key.split(".").length === 3;
  const headers = { "Content-Type": "application/json", ...(isToken ? { Authorization: `Bearer ${key}` } : { "X-API-Key": key }) };
  try {
    const answer = await fetch("tickets", { method: "POST", headers, body: JSON.stringify({ path: "/" }) });
    const content = await answer.json();
    if (!answer.ok) throw new ApiError(answer.status, content);
    location.replace(`?ticket=${encodeURIComponent(content.ticket)}${location.hash}`);
  } catch (error) {
    form.querySelector(".problem").textContent = error.message;
  }
});

// Tabs

function healthOf(tab) {
  if (!tab.needs) return { status: "ready", detail: "" };
  const found = sandbox?.data.capabilities[tab.needs];
  return found || { status: problem ? "failed" : "starting", detail: problem };
}

function build() {
  for (const tab of TABS) {
    tab.dot = element("span", { className: "dot" });
    tab.button = element("button", { id: `tab-${tab.id}`, onclick: () => select(tab) }, tab.dot, tab.title);
    tab.button.setAttribute("role", "tab");
    tab.button.setAttribute("aria-controls", `panel-${tab.id}`);
    tab.panel = element("div", { id: `panel-${tab.id}`, hidden: true });
    tab.panel.setAttribute("role", "tabpanel");
    tab.panel.setAttribute("aria-labelledby", tab.button.id);
    document.getElementById("tabs").append(tab.button);
    document.getElementById("panels").append(tab.panel);
    if (!tab.needs) tab.dot.remove();
  }
  document.getElementById("tabs").addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!move) return;
    event.preventDefault();
    const place = TABS.indexOf(selected) + move;
    const next = Number.isFinite(place) ? TABS[(place + TABS.length) % TABS.length] : TABS[move < 0 ? 0 : TABS.length - 1];
    select(next);
    next.button.focus();
  });
}

function select(tab) {
  selected = tab;
  for (const other of TABS) {
    other.button.setAttribute("aria-selected", String(other === tab));
    other.button.tabIndex = other === tab ? 0 : -1;
    other.panel.hidden = other !== tab;
  }
  history.replaceState(null, "", `#${tab.id}`);
  fill(tab);
}

// A page that has been opened stays, also while its service restarts: it reconnects by itself.
function fill(tab) {
  if (tab.filled) {
    tab.update?.();
    return;
  }
  const health = healthOf(tab);
  if (health.status !== "ready") {
    const words = { starting: "is starting", unavailable: "is not available here", failed: "does not work" };
    const text = element("div", { className: "message" }, element("h2", {}, `${tab.title} ${words[health.status]}`));
    text.append(element("p", {}, health.detail || "This page opens as soon as it is there."));
    tab.panel.replaceChildren(text);
    return;
  }
  tab.filled = true;
  if (tab.page) tab.panel.replaceChildren(element("iframe", { src: tab.page, title: tab.title, allow: "clipboard-read; clipboard-write; fullscreen" }));
  else tab.build(tab);
}

async function refresh() {
  try {
    sandbox = await api("v1/sandbox");
    problem = "";
  } catch (error) {
    sandbox = null;
    problem = error.status === 401 ? "Sign in to see it." : `The sandbox does not answer: ${error.message}`;
  }
  for (const tab of TABS) {
    const health = healthOf(tab);
    tab.dot.className = `dot ${health.status}`;
    tab.button.title = tab.needs ? [health.status, health.detail].filter(Boolean).join(": ") : "";
  }
  const wanted = TABS.find((tab) => `#${tab.id}` === location.hash) || TABS.find((tab) => healthOf(tab).status === "ready");
  if (!selected && (sandbox || problem)) select(wanted);
  else if (selected) fill(selected);
}

const link = (address) => (/^https?:\/\/[^{]*$/.test(address) ? element("a", { href: address, target: "_blank", rel: "noopener" }, address) : address);

function buildStatus(tab) {
  tab.update = () => {
    const view = element("div", { className: "overview" });
    if (!sandbox) view.append(element("p", { className: "problem" }, problem || "Asking …"));
    else {
      const cards = Object.entries(sandbox.data.capabilities).map(([name, health]) =>
        element("li", {},
          element("strong", {}, element("span", { className: `dot ${health.status}` }), name),
          element("small", {}, [health.status, health.version].filter(Boolean).join(" · ")),
          element("small", {}, health.detail)));
      const { system } = sandbox.detail;
      const rows = {
        Workspace: sandbox.workspace,
        System: `${system.os} ${system.os_version}, ${system.arch}, user ${system.user}`,
        ...Object.fromEntries(Object.entries(sandbox.data.versions).map(([name, version]) => [`Version of ${name}`, version])),
        ...Object.fromEntries(Object.entries(sandbox.data.addresses).map(([name, address]) => [`Address of ${name}`, link(address)])),
      };
      view.append(
        element("h2", {}, sandbox.data.ready ? "The sandbox is ready" : "The sandbox is not ready yet"),
        element("ul", { className: "cards" }, ...cards),
        element("dl", {}, ...Object.entries(rows).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])));
    }
    const top = tab.panel.scrollTop;
    tab.panel.replaceChildren(view);
    tab.panel.scrollTop = top;
  };
  tab.update();
}

// Files

function size(bytes) {
  if (bytes === null || bytes === undefined) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(bytes, 1)) / 10));
  return `${(bytes / 1024 ** power).toFixed(power && bytes / 1024 ** power < 10 ? 1 : 0)} ${units[power]}`;
}

function when(text) {
  if (!text) return "";
  const date = new Date(/^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : text);
  return Number.isNaN(date.valueOf()) ? "" : date.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

const downloadAddress = (path) => `v1/file/download?path=${encodeURIComponent(path)}`;

function buildFiles(tab) {
  tab.panel.replaceChildren(document.getElementById("files-template").content.cloneNode(true));
  const find = (selector) => tab.panel.querySelector(selector);
  const view = find(".files");
  const preview = find(".preview");
  const text = find("textarea");
  const root = sandbox.workspace;
  let folder = root;
  let opened = null;

  const guarded = (action) => async (...words) => {
    find(".problem").textContent = "";
    try {
      await action(...words);
    } catch (error) {
      find(".problem").textContent = error.message;
    }
  };

  const show = guarded(async (path) => {
    const { data } = await api("v1/file/list", { path, sort_by: "name" });
    folder = path;
    const below = path === root ? [] : path.slice(root.length + 1).split("/");
    const steps = [["workspace", root], ...below.map((name, index) => [name, [root, ...below.slice(0, index + 1)].join("/")])];
    find(".crumbs").replaceChildren(...steps.flatMap(([name, target], index) => [
      ...(index ? [" / "] : []),
      element("button", { className: "link", onclick: () => show(target) }, name),
    ]));
    const rows = data.files.sort((a, b) => b.is_directory - a.is_directory || a.name.localeCompare(b.name)).map(row);
    if (!rows.length) rows.push(element("tr", {}, element("td", { colSpan: 4, className: "note" }, "Empty. Drop files here to upload them.")));
    if (data.truncated) rows.push(element("tr", {}, element("td", { colSpan: 4, className: "note" }, "There are more files than are listed.")));
    find("tbody").replaceChildren(...rows);
  });

  function row(file) {
    const remove = element("button", { onclick: guarded(async () => {
      if (!confirm(`Delete ${file.name}${file.is_directory ? " and everything in it" : ""}?`)) return;
      await api("v1/file/delete", { path: file.path, recursive: true });
      if (opened?.path === file.path) close();
      await show(folder);
    }) }, "Delete");
    remove.setAttribute("aria-label", `Delete ${file.name}`);
    const actions = file.is_directory ? [] : [element("a", { className: "button", href: downloadAddress(file.path), download: file.name, ariaLabel: `Download ${file.name}` }, "Download"), " "];
    const name = element("button", { className: "link", onclick: () => (file.is_directory ? show(file.path) : open(file)) }, file.is_directory ? `${file.name}/` : file.name);
    return element("tr", {},
      element("td", {}, name),
      element("td", { className: "number" }, file.is_directory ? "" : size(file.size)),
      element("td", {}, when(file.modified_time)),
      element("td", {}, ...actions, remove));
  }

  const close = () => {
    opened = null;
    preview.hidden = true;
  };

  const open = guarded(async (file) => {
    const picture = PICTURES.test(file.name);
    opened = { path: file.path };
    preview.querySelector("h2").textContent = file.name;
    preview.querySelector("img").hidden = !picture;
    let note = "";
    let content = null;
    if (picture) {
      preview.querySelector("img").src = `${downloadAddress(file.path)}&inline=true&v=${encodeURIComponent(file.modified_time || "")}`;
      preview.querySelector("img").alt = file.name;
    } else if (file.size > PREVIEW_BYTES) note = `${size(file.size)} are too much to show here; download it.`;
    else {
      try {
        const { data } = await api("v1/file/read", { file: file.path });
        content = data.content;
        opened.etag = data.etag;
      } catch (error) {
        note = error.message;
      }
    }
    text.hidden = content === null;
    text.value = content ?? "";
    preview.querySelector("[data-do=save]").hidden = content === null;
    preview.querySelector(".note").textContent = note;
    preview.hidden = false;
  });

  const save = guarded(async () => {
    const { data } = await api("v1/file/write", { file: opened.path, content: text.value, if_etag: opened.etag });
    opened.etag = data.etag;
    preview.querySelector(".note").textContent = "Saved.";
    await show(folder);
  });

  const upload = guarded(async (files) => {
    for (const file of files) {
      const form = new FormData();
      form.append("path", `${folder}/${file.name}`);
      form.append("file", file);
      await api("v1/file/upload", form);
    }
    await show(folder);
  });

  const create = guarded(async (kind) => {
    const name = prompt(`Name of the new ${kind}`)?.trim();
    if (!name) return;
    const path = `${folder}/${name}`;
    if (kind === "folder") await api("v1/file/mkdir", { path, exist_ok: false });
    else await api("v1/file/write", { file: path, content: "", overwrite: false });
    await show(folder);
    if (kind === "file") await open({ path, name, size: 0 });
  });

  view.addEventListener("click", (event) => {
    const action = event.target.dataset?.do;
    const actions = { refresh: () => show(folder), folder: () => create("folder"), file: () => create("file"), save, close };
    actions[action]?.();
  });
  view.querySelector("input[type=file]").addEventListener("change", (event) => {
    upload([...event.target.files]).then(() => { event.target.value = ""; });
  });
  view.addEventListener("dragover", (event) => {
    event.preventDefault();
    view.classList.add("dropping");
  });
  view.addEventListener("dragleave", () => view.classList.remove("dropping"));
  view.addEventListener("drop", (event) => {
    event.preventDefault();
    view.classList.remove("dropping");
    upload([...event.dataTransfer.files]);
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "s" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      save();
    }
  });
  show(root);
}

window.addEventListener("hashchange", () => {
  const tab = TABS.find((found) => `#${found.id}` === location.hash);
  if (tab) select(tab);
});

build();
refresh();
setInterval(() => {
  if (!document.hidden && !document.getElementById("sign-in").open) refresh();
}, REFRESH_MS);
