"use strict";
// The page's script: search, zoom, details, and the way through the levels of an address space. All words get into the
// page as text. Addresses are not calculated here: cni_v6/drawing/document.py has them all.

const facts = JSON.parse(document.getElementById("facts").textContent);
const SVG = "http://www.w3.org/2000/svg";
const at = (id) => document.getElementById(id);

function made(name, attributes, ...children) {
  const element = document.createElement(name);
  Object.assign(element, attributes);
  element.append(...children);
  return element;
}

function drawn(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Details

const containers = new Map();
for (const segment of facts.segments) {
  for (const attachment of segment.attachments) containers.set(attachment.name, { ...attachment, segment: segment.name });
}

function show(title, rows, buttons = []) {
  const list = made("dl", {});
  for (const [term, value] of rows) {
    if (value) list.append(made("dt", { textContent: term }), made("dd", { textContent: value }));
  }
  at("about").replaceChildren(made("h3", { textContent: title }), list, ...buttons);
}

function showContainer(attachment) {
  const ports = attachment.publishedPorts.map((port) =>
    `${port.protocol} ${port.hostIP ? port.hostIP + " " : ""}${port.hostPort} \u2192 ${port.containerPort}`);
  const others = [...containers.values()].filter((other) =>
    other.containerID === attachment.containerID && other !== attachment);
  const buttons = attachment.addresses.filter((address) => facts.where[address]).map((address) =>
    made("button", { textContent: `${address} in its address space`, onclick: () => showAddress(address) }));
  show(`${attachment.containerID} ${attachment.ifname}`, [
    ["state", attachment.state + (attachment.problem ? ": " + attachment.problem : "")],
    ["network", attachment.network],
    ["addresses", attachment.addresses.join(" ")],
    ["prefixes", attachment.prefixes.join(" ")],
    ["on", attachment.segment],
    ["host interface", attachment.hostInterface],
    ["since", attachment.created ? new Date(attachment.created * 1000).toLocaleString() : ""],
    ["policies", attachment.policies.join(", ")],
    ["published", ports.join(", ")],
    ["also", others.map((other) => `${other.ifname} on ${other.network}`).join(", ")],
  ], buttons);
}

// The pointer says something when it moves, not when something moves below it.
let pointer = "";
function moved(event) {
  const before = pointer;
  pointer = `${event.screenX} ${event.screenY}`;
  return pointer !== before;
}

// A group of which one element is in the order of the tab key; arrow keys move among them by where they are.

const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

function centre(element) {
  const box = element.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}

function nearest(from, elements, [right, down]) {
  const [x, y] = centre(from);
  let best = null, least = Infinity;
  for (const element of elements) {
    if (element === from) continue;
    const [toX, toY] = centre(element);
    const ahead = (toX - x) * right + (toY - y) * down;
    const aside = Math.abs((toX - x) * down) + Math.abs((toY - y) * right);
    if (ahead > 1 && ahead + 3 * aside < least) [best, least] = [element, ahead + 3 * aside];
  }
  return best;
}

function enter(element, elements) {
  for (const other of elements) other.setAttribute("tabindex", other === element ? "0" : "-1");
  element.focus();
}

function arrows(event, elements) {
  const way = ARROWS[event.key];
  const from = event.target.closest("[tabindex]");
  if (!way || !from) return;
  event.preventDefault();
  const next = nearest(from, elements, way);
  if (next) enter(next, elements);
}

// Topology

const topology = at("topology");
const tiles = [...topology.querySelectorAll(".container")];
const whole = topology.viewBox.baseVal;
const full = { x: whole.x, y: whole.y, width: whole.width, height: whole.height };
let view = { ...full };

function look(next) {
  const width = Math.min(full.width, Math.max(full.width / 40, next.width));
  const height = width * full.height / full.width;
  const inside = (place, size, least, most) => Math.max(least, Math.min(place, least + most - size));
  view = { width, height, x: inside(next.x, width, full.x, full.width), y: inside(next.y, height, full.y, full.height) };
  topology.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
}

function zoom(factor, x = view.x + view.width / 2, y = view.y + view.height / 2) {
  look({ width: view.width * factor, x: x - (x - view.x) * factor, y: y - (y - view.y) * factor });
}

function point(event) {
  return new DOMPoint(event.clientX, event.clientY).matrixTransform(topology.getScreenCTM().inverse());
}

at("in").onclick = () => zoom(1 / 1.5);
at("out").onclick = () => zoom(1.5);
at("fit").onclick = () => look(full);
topology.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  const { x, y } = point(event);
  zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, x, y);
}, { passive: false });

let dragged = null;
topology.addEventListener("pointerdown", (event) => { dragged = point(event); });
topology.addEventListener("pointermove", (event) => {
  if (!dragged || !event.buttons) return;
  const { x, y } = point(event);
  look({ ...view, x: view.x + dragged.x - x, y: view.y + dragged.y - y });
});
addEventListener("pointerup", () => { dragged = null; });

tiles.forEach((tile, number) => {
  tile.setAttribute("role", "button");
  tile.setAttribute("tabindex", number ? "-1" : "0");
  tile.setAttribute("aria-label", tile.querySelector("title").textContent);
  const attachment = containers.get(tile.dataset.id);
  tile.addEventListener("pointerenter", (event) => { if (moved(event)) showContainer(attachment); });
  tile.addEventListener("focus", () => {
    showContainer(attachment);
    const box = tile.getBBox();
    const seen = box.x >= view.x && box.y >= view.y && box.x + box.width <= view.x + view.width
      && box.y + box.height <= view.y + view.height;
    if (!seen) look({ ...view, x: box.x + box.width / 2 - view.width / 2, y: box.y + box.height / 2 - view.height / 2 });
  });
  tile.addEventListener("click", () => choose(tile));
});

function choose(tile) {
  const { containerID } = containers.get(tile.dataset.id);
  for (const other of tiles) {
    other.classList.toggle("chosen", containers.get(other.dataset.id).containerID === containerID);
  }
  enter(tile, tiles);
}

topology.addEventListener("keydown", (event) => {
  arrows(event, tiles);
  const tile = event.target.closest(".container");
  if (tile && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    choose(tile);
  }
  if (event.key === "+" || event.key === "=") zoom(1 / 1.5);
  if (event.key === "-") zoom(1.5);
  if (event.key === "0") look(full);
});

// Cluster

const cluster = at("cluster");
const members = cluster ? [...cluster.querySelectorAll(".member")] : [];

function showNode(node) {
  const fullness = (block) => (block.leases === null ? "" : `, ${block.leases} in use`);
  show(`node ${node.node}`, [
    ["state", node.state],
    ["carrier", node.carrier],
    ["addresses", node.addresses.join(" ")],
    ["blocks", node.blocks.map((block) => block.prefix + fullness(block)).join("; ")],
    ["answers", node.answers.join("; ")],
  ]);
}

members.forEach((tile, number) => {
  tile.setAttribute("role", "button");
  tile.setAttribute("tabindex", number ? "-1" : "0");
  tile.setAttribute("aria-label", tile.querySelector("title").textContent);
  const node = facts.cluster[Number(tile.dataset.node)];
  tile.addEventListener("pointerenter", (event) => { if (moved(event)) showNode(node); });
  tile.addEventListener("focus", () => showNode(node));
  tile.addEventListener("click", () => enter(tile, members));
});
if (cluster) cluster.addEventListener("keydown", (event) => arrows(event, members));

// Search

const search = at("search");

function found() {
  const words = search.value.toLowerCase().trim();
  const matching = (attachment) => [attachment.containerID, attachment.network, attachment.ifname,
    attachment.hostInterface, attachment.state, ...attachment.addresses, ...attachment.prefixes]
    .some((text) => text.toLowerCase().includes(words));
  const matches = words ? tiles.filter((tile) => matching(containers.get(tile.dataset.id))) : [];
  topology.classList.toggle("searching", Boolean(words));
  for (const tile of tiles) tile.classList.toggle("found", matches.includes(tile));
  const count = matches.length;
  at("matches").textContent = words ? `${count || "no"} ${count === 1 ? "container" : "containers"}` : "";
  return matches;
}

search.addEventListener("input", found);
search.addEventListener("keydown", (event) => {
  if (event.key === "Enter") {
    const [first] = found();
    if (first) choose(first);
  } else if (event.key === "Escape") {
    search.value = "";
    found();
  }
});
addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target !== search) {
    event.preventDefault();
    search.focus();
  }
});

// Address space

const cells = at("cells");
const SIDE = 512;
let space = 0, shown = "";

function levelsUpTo(key) {
  const { levels } = facts.addressSpaces[space];
  const path = [];
  for (let next = key; next; next = levels[next].parent) path.unshift(next);
  return path;
}

function mark(state, whole, x, y, wide, high) {
  const parts = [];
  if (whole) parts.push(drawn("rect", { class: state + (state === "used" || state === "outside" ? "" : " tint"),
    x, y, width: wide, height: high }));
  if (whole && (state === "used" || state === "outside")) return parts;
  const middleX = x + wide / 2, middleY = y + high / 2, half = Math.min(wide, high) * .28;
  if (state === "used" || state === "outside" || state === "spent") {
    parts.push(drawn("rect", { class: state === "spent" ? "ring-spent" : state, x: middleX - half, y: middleY - half,
      width: 2 * half, height: 2 * half }));
  } else if (state === "delegated") {
    parts.push(drawn("path", { class: state,
      d: `M${middleX} ${middleY - half}l${half} ${half}l${-half} ${half}l${-half} ${-half}z` }));
  } else {
    parts.push(drawn("circle", { class: state === "waiting" ? "ring-waiting" : state, cx: middleX, cy: middleY,
      r: state === "waiting" ? half : half * .8 }));
  }
  return parts;
}

function showLevel(key, focus) {
  const about = facts.addressSpaces[space], level = about.levels[key];
  shown = key;
  const shape = facts.shapes[level.bits];
  const columns = Math.max(...shape.map(([column]) => column)) + 1;
  const rows = Math.max(...shape.map(([, row]) => row)) + 1;
  const wide = SIDE / columns, high = SIDE / rows;
  const filled = new Map(level.cells.map((cell) => [cell.place, cell]));
  const line = shape.map(([column, row]) => `${(column + .5) * wide} ${(row + .5) * high}`).join("L");
  const groups = shape.map(([column, row], place) => {
    const cell = filled.get(place), x = column * wide, y = row * high;
    const words = cell ? cell.words : `${key}, cell ${place}: ${level.about.replace("a cell: ", "")}, never touched`;
    const parts = [drawn("rect", { class: "cell", x, y, width: wide, height: high })];
    if (cell) parts.push(...mark(cell.state, cell.whole, x, y, wide, high));
    if (cell && cell.whole && cell.state === "used") {
      const digits = drawn("text", { class: "on-used", x: x + wide / 2, y: y + high / 2 + 4, "font-size": 11,
        "text-anchor": "middle" });
      digits.textContent = cell.digits;
      parts.push(digits);
    }
    const group = drawn("g", { class: cell && cell.key ? "deeper" : "", tabindex: "-1", role: "button",
      "aria-label": cell && cell.key ? `${words}. Enter looks into it.` : words, "data-place": place }, ...parts);
    const tell = () => show(words, []);
    group.addEventListener("pointerenter", (event) => { if (moved(event)) tell(); });
    group.addEventListener("focus", tell);
    group.addEventListener("click", () => (cell && cell.key ? showLevel(cell.key, 0) : enter(group, groups)));
    return group;
  });
  const curve = drawn("path", { class: "hilbert", d: `M${line}`, "stroke-opacity": .6 });
  cells.replaceChildren(curve, ...groups);
  const first = focus === undefined ? Math.min(...level.cells.map((cell) => cell.place), shape.length - 1) : focus;
  groups[first].setAttribute("tabindex", "0");
  if (focus !== undefined) groups[first].focus();
  const path = levelsUpTo(key);
  at("path").replaceChildren(...path.map((prefix) => made("button", {
    textContent: prefix, disabled: prefix === key, onclick: () => showLevel(prefix, 0) })));
  cells.setAttribute("aria-label", `Cells of ${key}, ${level.about}`);
  at("scale").textContent = `${key}, ${level.about}`;
}

function showSpace(number) {
  space = number;
  at("space").value = String(number);
  at("totals").textContent = facts.addressSpaces[number].totals;
  for (const chart of document.querySelectorAll(".burn")) chart.toggleAttribute("hidden", chart.dataset.space !== String(number));
  showLevel(Object.keys(facts.addressSpaces[number].levels)[0]);
}

function showAddress(address) {
  const [number, key] = facts.where[address];
  showSpace(number);
  const cell = facts.addressSpaces[number].levels[key].cells.find((one) => one.words.startsWith(`${address}:`));
  showLevel(key, cell.place);
  cells.scrollIntoView({ block: "center" });
}

function busiest() {
  const number = Object.values(facts.where).find(([of]) => of === space);
  return number ? number[1] : "";
}

if (facts.addressSpaces.length) {
  at("space").onchange = (event) => showSpace(Number(event.target.value));
  at("busy").onclick = () => { if (busiest()) showLevel(busiest(), 0); };
  cells.addEventListener("keydown", (event) => {
    const groups = [...cells.querySelectorAll("g")];
    arrows(event, groups);
    const group = event.target.closest("g");
    if (group && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      group.dispatchEvent(new MouseEvent("click"));
    }
    const path = levelsUpTo(shown);
    if (event.key === "Backspace" && path.length > 1) {
      event.preventDefault();
      const above = facts.addressSpaces[space].levels[path[path.length - 2]];
      showLevel(path[path.length - 2], above.cells.find((cell) => cell.key === path[path.length - 1]).place);
    }
  });
  showSpace(0);
}
