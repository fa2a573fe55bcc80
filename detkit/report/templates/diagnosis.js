"use strict";
// Names are untrusted: they are set as textContent, attributes and values, never as HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const PAGE = matchMedia("(max-width: 40rem)").matches ? 18 : 42; // cards at once
  const SVG = "http://www.w3.org/2000/svg";
  const SAYS = { accepted: "Background", rejected: "Object" };

  function element(name, options = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(options)) {
      if (key in made) made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  function shape(name, attributes, title) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (title) made.append(shape("title", {}));
    if (title) made.firstChild.textContent = title;
    return made;
  }

  const nameOf = (item) => data.classes[item.class];
  const imageOf = (item) => data.images[item.image];
  const isMissed = (item) => item.kind === data.kinds.length - 1;

  // ---- pictures ----

  function boxes([x0, y0, x1, y1], kind, title, weight = "") {
    const place = { x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0) };
    return [
      shape("rect", { ...place, class: `halo ${weight}` }),
      shape("rect", { ...place, class: `box ${kind} ${weight}` }, title),
    ];
  }

  function picture(uri, [x0, y0, x1, y1]) {
    const place = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
    if (uri === null) return shape("rect", { ...place, class: "plane" });
    return shape("image", { ...place, href: uri, preserveAspectRatio: "none" });
  }

  function itsBoxes(item, weight) {
    const found = [];
    const other = item.other && data.classes[item.other.class];
    if (item.other) {
      const kind = isMissed(item) ? "false" : "found";
      found.push(...boxes(item.other.box, kind, (isMissed(item) ? "nearest detection: " : "nearest object: ") + other));
    }
    found.push(...boxes(item.box, isMissed(item) ? "missed" : "false", describe(item), weight));
    return found;
  }

  function patch(item) {
    const [x0, y0, x1, y1] = item.patch.window;
    const side = Math.max(x1 - x0, y1 - y0);
    const view = [x0 - (side - (x1 - x0)) / 2, y0 - (side - (y1 - y0)) / 2, side, side];
    const drawn = shape("svg", { viewBox: view.join(" "), "aria-hidden": "true" });
    drawn.append(picture(item.patch.uri, item.patch.window), ...itsBoxes(item, ""));
    return drawn;
  }

  function extent(image, item) {
    if (image.size) return [image.size[1], image.size[0]];
    const all = [item.box, ...image.objects.map((one) => one[2]), ...image.detections.map((one) => one[3])];
    return [2, 3].map((side) => 1.05 * Math.max(...all.map((box) => box[side])));
  }

  function scene(item) {
    const image = imageOf(item);
    const [width, height] = extent(image, item);
    const drawn = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": describe(item) });
    drawn.append(picture(image.uri, [0, 0, width, height]));
    for (const [label, state, box] of image.objects)
      drawn.append(...boxes(box, state, `${state}: ${data.classes[label]}`, "thin"));
    for (const [label, outcome, score, box] of [...image.detections].reverse())
      drawn.append(...boxes(box, outcome, `${outcome}: ${data.classes[label]} ${score.toFixed(2)}`, "thin"));
    drawn.append(...itsBoxes(item, "strong"));
    return drawn;
  }

  // ---- words ----

  const scoreOf = (item) => (item.score === null ? "" : item.score.toFixed(2));

  function describe(item) {
    return isMissed(item) ? `missed: ${nameOf(item)}` : `${data.kinds[item.kind]}: ${nameOf(item)} ${scoreOf(item)}`;
  }

  function nearest(item) {
    if (!item.other || item.iou === 0) return isMissed(item) ? "no detection on it" : "no object on it";
    const what = isMissed(item) ? `nearest detection ${data.classes[item.other.class]} ${scoreOf(item)}` : data.classes[item.other.class];
    return `IoU ${item.iou.toFixed(2)}, ${what}`;
  }

  function persistence(item) {
    if (!data.witnesses.length) return "";
    if (!item.seen.length) return `in none of ${data.witnesses.length} others`;
    const names = item.seen.map((place) => data.witnesses[place]).join(", ");
    return `also in ${item.seen.length} of ${data.witnesses.length}: ${names}`;
  }

  // ---- cards ----

  function card(item, list) {
    const kind = item.near ? `${data.kinds[item.kind]}, near miss` : data.kinds[item.kind];
    const button = element("button", { type: "button", className: "item", "aria-label": `${describe(item)}, show in its image` });
    if (item.patch) button.append(patch(item));
    else button.textContent = "Show in its image";
    button.addEventListener("click", () => open(list(), item));
    const heading = isMissed(item) ? nameOf(item) : `${scoreOf(item)} ${nameOf(item)}`;
    const caption = element("figcaption", {}, element("b", { textContent: heading, title: heading }));
    const lines = item.suspect !== null && list === suspectList ? [persistence(item)] : [kind, nearest(item)];
    for (const line of lines) if (line) caption.append(element("span", { textContent: line }));
    caption.append(element("span", { className: "source", textContent: imageOf(item).name, title: imageOf(item).name }));
    return element("figure", {}, button, caption);
  }

  function pager(container, button, make) {
    let list = [];
    let count = 0;
    const more = () => {
      container.append(...list.slice(count, count + PAGE).map(make));
      count = Math.min(list.length, count + PAGE);
      button.hidden = count >= list.length;
      button.textContent = `Show more (${list.length - count})`;
    };
    button.addEventListener("click", more);
    return (items) => {
      list = items;
      count = 0;
      container.replaceChildren();
      more();
    };
  }

  // ---- filters ----

  const filters = ["class", "kind", "from", "to", "image"];
  const control = Object.fromEntries(filters.map((name) => [name, byId(`filter-${name}`)]));
  let shown = data.items;
  const shownList = () => shown;
  const show = pager(byId("items"), byId("more"), (item) => card(item, shownList));

  function fill() {
    const classes = new Set(data.items.map((item) => item.class));
    const kinds = new Set(data.items.map((item) => item.kind));
    data.classes.forEach((name, place) => {
      if (classes.has(place)) control.class.append(element("option", { value: String(place), textContent: name }));
    });
    data.kinds.forEach((name, place) => {
      if (kinds.has(place)) control.kind.append(element("option", { value: String(place), textContent: name }));
    });
    byId("images").append(...[...new Set(data.images.map((image) => image.name))].map((name) => element("option", { value: name })));
  }

  function passes(item, wanted) {
    if (wanted.class !== "" && item.class !== Number(wanted.class)) return false;
    if (wanted.kind === "near" ? !item.near : wanted.kind !== "" && item.kind !== Number(wanted.kind)) return false;
    if (wanted.from !== "" && !(item.score !== null && item.score >= Number(wanted.from))) return false;
    if (wanted.to !== "" && !(item.score !== null && item.score <= Number(wanted.to))) return false;
    return imageOf(item).name.toLowerCase().includes(wanted.image.toLowerCase());
  }

  function filter() {
    const wanted = Object.fromEntries(filters.map((name) => [name, control[name].value.trim()]));
    shown = data.items.filter((item) => passes(item, wanted));
    byId("count").textContent = `${shown.length} of ${data.items.length}`;
    show(shown);
    if (!shown.length) byId("items").append(element("p", { className: "empty", textContent: "Nothing passes these filters." }));
    const set = filters.filter((name) => wanted[name] !== "").map((name) => [name, wanted[name]]);
    return set.length ? `#filter&${new URLSearchParams(set)}` : "#gallery";
  }

  function restore() {
    if (!location.hash.startsWith("#filter&")) return;
    const told = new URLSearchParams(location.hash.slice("#filter&".length));
    for (const name of filters) control[name].value = told.get(name) ?? "";
    filter();
    byId("gallery").scrollIntoView();
  }

  const refilter = () => history.replaceState(null, "", filter());
  for (const one of Object.values(control)) {
    // A text changes when it loses the focus, often to a card, which must not be made anew under the pointer.
    one.addEventListener(one instanceof HTMLSelectElement ? "change" : "input", refilter);
  }
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => setTimeout(refilter)); // the controls are emptied after the event
  addEventListener("hashchange", restore);

  // ---- marks ----

  const suspects = data.items.filter((item) => item.suspect !== null).sort((one, other) => one.suspect - other.suspect);
  const suspectList = () => suspects;
  const marks = new Map();
  const digests = new Map(); // of the images of marks made before
  let kept = []; // of other places, which are saved again as they are
  let unsaved = false;

  function overlap(a, b) {
    const sides = [0, 1].map((axis) => Math.min(a[axis + 2], b[axis + 2]) - Math.max(a[axis], b[axis]));
    const shared = Math.max(0, sides[0]) * Math.max(0, sides[1]);
    const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
    return shared / (area(a) + area(b) - shared);
  }

  function takeMarks() {
    const sameImage = (mark, image) =>
      mark.file_name === image.name && (!mark.sha256 || !image.sha256 || mark.sha256 === image.sha256);
    const about = (mark, item) =>
      sameImage(mark, imageOf(item)) && mark.category === nameOf(item) && overlap(mark.box, item.box) >= data.same_place;
    for (const item of suspects) {
      const made = data.marks.marks.find((mark) => about(mark, item));
      if (made) marks.set(item, made.mark);
      if (made?.sha256) digests.set(item, made.sha256);
    }
    kept = data.marks.marks.filter((mark) => !suspects.some((item) => about(mark, item)));
    try {
      const stored = JSON.parse(localStorage.getItem(data.key));
      if (stored) {
        marks.clear();
        for (const [place, mark] of stored.marks) marks.set(suspects[place], mark);
        unsaved = stored.unsaved;
      }
    } catch { /* a browser that keeps nothing for files */ }
  }

  function remember() {
    const made = suspects.flatMap((item, place) => (marks.has(item) ? [[place, marks.get(item)]] : []));
    try {
      localStorage.setItem(data.key, JSON.stringify({ marks: made, unsaved }));
    } catch { /* as above */ }
  }

  function setMark(item, mark) {
    if (marks.get(item) === mark) marks.delete(item);
    else marks.set(item, mark);
    unsaved = true;
    remember();
    refresh();
  }

  function verdicts(item) {
    const buttons = Object.entries(SAYS).map(([mark, text]) => {
      const button = element("button", { type: "button", textContent: text, "aria-label": `${text}: ${describe(item)}` });
      button.addEventListener("click", () => setMark(item, mark));
      button.dataset.mark = mark;
      return button;
    });
    const row = element("div", { className: "verdicts" }, ...buttons);
    press(row, item);
    rows.add([row, item]);
    return row;
  }

  const rows = new Set();
  function press(row, item) {
    for (const button of row.children) button.setAttribute("aria-pressed", String(marks.get(item) === button.dataset.mark));
  }

  function refresh() {
    for (const [row, item] of rows) press(row, item);
    const more = kept.length ? `, and ${kept.length} of other places are kept` : "";
    byId("marked").textContent = `${marks.size} of ${suspects.length} marked${more}${unsaved ? ", not saved" : ""}`;
  }

  function save() {
    const made = suspects.filter((item) => marks.has(item)).map((item) => ({
      file_name: imageOf(item).name,
      sha256: imageOf(item).sha256 ?? digests.get(item), // left out where neither is known
      box: item.box,
      category: nameOf(item),
      score: item.score,
      mark: marks.get(item),
    }));
    const tree = { ...data.marks, marks: [...kept, ...made] };
    const file = URL.createObjectURL(new Blob([JSON.stringify(tree, null, 1), "\n"], { type: "application/json" }));
    element("a", { href: file, download: "review_marks.json" }).click();
    setTimeout(() => URL.revokeObjectURL(file), 60_000);
    unsaved = false;
    remember();
    refresh();
  }

  function prepareMarks() {
    takeMarks();
    byId("save").addEventListener("click", save);
    pager(byId("suspects"), byId("more-suspects"), (item) => {
      const made = card(item, suspectList);
      made.append(verdicts(item));
      return made;
    })(suspects);
    refresh();
    addEventListener("beforeunload", (event) => {
      if (unsaved) event.preventDefault();
    });
  }

  // ---- one error in its image ----

  const viewer = byId("viewer");
  let list = [];
  let place = 0;

  function open(items, item) {
    list = items;
    view(items.indexOf(item));
    viewer.showModal();
  }

  function view(next) {
    place = Math.min(Math.max(next, 0), list.length - 1);
    const item = list[place];
    const image = imageOf(item);
    byId("viewer-title").textContent = describe(item);
    byId("scene").replaceChildren(scene(item));
    const undrawn = image.undrawn ? `${image.undrawn} less sure detections are not drawn` : "";
    byId("viewer-text").textContent = [image.name, nearest(item), item.suspect === null ? "" : persistence(item), undrawn].filter(Boolean).join("; ");
    for (const row of rows) if (!row[0].isConnected || viewer.contains(row[0])) rows.delete(row);
    byId("viewer-marks").replaceChildren(...(item.suspect === null ? [] : [verdicts(item)]));
    byId("position").textContent = `${place + 1} of ${list.length}`;
    byId("previous").disabled = place === 0;
    byId("next").disabled = place === list.length - 1;
  }

  byId("close").addEventListener("click", () => viewer.close());
  byId("previous").addEventListener("click", () => view(place - 1));
  byId("next").addEventListener("click", () => view(place + 1));
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close(); // beside it
  });
  viewer.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      event.preventDefault();
      view(place + step);
    }
  });

  fill();
  filter();
  restore();
  if (suspects.length) prepareMarks();
})();
