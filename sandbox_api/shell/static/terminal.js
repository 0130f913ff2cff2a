"use strict";
// The terminal page: xterm.js on one side, the websocket beside this page on the other. It connects again by itself,
// and the server then replays the screen's history.
(() => {
  const notice = document.getElementById("notice");
  const STORED = "sandbox-terminal";

  function show(text, action, run) {
    notice.hidden = !text;
    notice.querySelector("span").textContent = text || "";
    const button = notice.querySelector("button");
    button.hidden = !action;
    button.textContent = action || "";
    button.onclick = run || null;
  }

  if (!window.Terminal || !window.FitAddon) {
    show("The terminal's library (xterm.js) is not installed on this server. Set SANDBOX_WEB_ASSETS to its folder.");
    return;
  }

  const terminal = new window.Terminal({
    cursorBlink: true, fontSize: 14, scrollback: 10000, macOptionIsMeta: true,
    fontFamily: 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
    theme: { background: "#1b1f27", foreground: "#e5e9f0", cursor: "#88c0d0", selectionBackground: "#4c566a" },
  });
  const fit = new window.FitAddon.FitAddon();
  terminal.loadAddon(fit);
  terminal.open(document.getElementById("screen"));
  window.terminal = terminal;

  const address = new URL(location.href);
  let session = address.searchParams.get("session_id") || sessionStorage.getItem(STORED);
  let socket = null;
  let delay = 250;
  let timer = null;
  let typed = "";

  function send(type, data) {
    if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type, data }));
  }

  // What is typed while the connection is being made goes out with it.
  function type(data) {
    if (socket && socket.readyState === WebSocket.CONNECTING) typed = (typed + data).slice(0, 65536);
    else send("input", data);
  }

  function resize() {
    fit.fit();
    send("resize", { cols: terminal.cols, rows: terminal.rows });
  }

  function remember(id) {
    session = id;
    sessionStorage.setItem(STORED, id);
    address.searchParams.set("session_id", id);
    history.replaceState(null, "", address);
  }

  function renew() {
    session = null;
    sessionStorage.removeItem(STORED);
    terminal.reset();
    connect();
  }

  function connect() {
    clearTimeout(timer);
    const url = new URL("terminal/ws", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    // Whatever else the page was called with (a folder, a ticket) is for the server.
    for (const [name, value] of address.searchParams) url.searchParams.set(name, value);
    if (session) url.searchParams.set("session_id", session);
    else url.searchParams.delete("session_id");
    const mine = (socket = new WebSocket(url));
    let over = false;
    mine.onopen = () => {
      delay = 250;
      show("");
      resize();
      if (typed) send("input", typed);
      typed = "";
      terminal.focus();
    };
    mine.onmessage = (event) => {
      const { type, data } = JSON.parse(event.data);
      if (type === "output") terminal.write(data);
      else if (type === "session_id") remember(data);
      else if (type === "restore_output") { terminal.reset(); terminal.write(data); }
      else if (type === "ping") send("pong", data);
      else if (type === "exit") { over = true; show(`The shell has ended (${data}).`, "New terminal", renew); }
      else if (type === "taken_over") { over = true; show("In use in another window.", "Use it here", connect); }
      else if (type === "error") { over = true; show(data, "Try again", connect); }
    };
    mine.onclose = () => {
      if (over || mine !== socket) return;
      show("Connection lost; connecting again …");
      timer = setTimeout(connect, delay);
      delay = Math.min(delay * 2, 5000);
    };
  }

  terminal.onData(type);
  new ResizeObserver(resize).observe(document.getElementById("screen"));
  window.addEventListener("online", connect);
  terminal.focus();
  connect();
})();
