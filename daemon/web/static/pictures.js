"use strict";
// The picture of a page: pan, zoom, blink, scale, difference, and the values under the pointer.
// Greys become values by what the worker has kept with the picture; values come from the FITS file by cut-out.

const pictures = (() => {
  const EMPTY = 20, SPAN = 255 - EMPTY, TILE = 32, TILES = 200, REACH = 5; // REACH : sigma from grey to white in a difference
  const kept = { scale: "fixed", bright: 1, contrast: 1, which: null }; // stays between pictures; which : that a person has chosen
  let view = null, blinking = 0;
  const clamp = (v, low, high) => Math.min(high, Math.max(low, v));
  const number = (v, digits = 6) => (v === 0 || (Math.abs(v) < 1e7 && Math.abs(v) >= 1e-4) ? String(+v.toPrecision(digits)) : v.toExponential(digits - 1)).replace(/-/g, "−");

  // Browsers that guard against fingerprints give noise for pixels: then pictures are shown as they were made.
  const readable = (() => {
    const canvas = document.createElement("canvas"), pen = canvas.getContext("2d", { willReadFrequently: true });
    const wanted = pen.createImageData(64, 4);
    for (let i = 0; i < wanted.data.length; i++) wanted.data[i] = i % 4 === 3 ? 255 : i >> 2;
    pen.putImageData(wanted, 0, 0);
    return pen.getImageData(0, 0, 64, 4).data.every((value, i) => value === wanted.data[i]);
  })();

  // -- scale ------------------------------------------------------------------------------------

  const level = ([black, white, soft], value) => {
    const part = white > black ? clamp((value - black) / (white - black), 0, 1) : 0;
    return EMPTY + SPAN * (soft ? Math.asinh(part / soft) / Math.asinh(1 / soft) : part);
  };
  const valueOf = ([black, white, soft], grey) => {
    const part = clamp((grey - EMPTY) / SPAN, 0, 1);
    return black + (white - black) * (soft ? soft * Math.sinh(part * Math.asinh(1 / soft)) : part);
  };
  const tuned = (part, still) => clamp((part * kept.bright - still) * kept.contrast + still, 0, 1);
  const untuned = (part, still) => clamp(((part - still) / kept.contrast + still) / kept.bright, 0, 1);
  // What contrast leaves as it is: the grey of the sky, where it is known.
  function stillOf(about) {
    if (!about.fixed) return 0.5;
    const [black, white] = about.fixed;
    return (level(about[scaleOf(about)], black + (white - black) / 6) - EMPTY) / SPAN;
  }
  const scaleOf = (about) => about[kept.scale] ? kept.scale : about.automatic ? "automatic" : "";

  // The grey on the screen of each grey of the source. Greys that no pixel has, of words over it, stay.
  function table(about, source) {
    const made = new Uint8Array(256), dim = about.dimmed || 1, shown = scaleOf(about), still = stillOf(about);
    for (let grey = 0; grey < 256; grey++) {
      made[grey] = grey;
      if (grey * dim < EMPTY - dim + 1 || grey > Math.floor(255 / dim)) continue;
      let whole = dim > 1 ? Math.min(255, grey * dim + (dim >> 1)) : grey;
      if (shown && source !== shown) whole = level(about[shown], valueOf(about[source], whole));
      made[grey] = Math.floor(Math.round(EMPTY + SPAN * tuned((whole - EMPTY) / SPAN, still)) / dim);
    }
    return made;
  }

  // -- one picture --------------------------------------------------------------------------------

  function start(root) {
    const before = view, blinked = !!blinking;
    stop();
    view = null;
    if (!root) return;
    const layers = ["first", "second"].filter((name) => root.dataset[name]).map((name) => JSON.parse(root.dataset[name]));
    const figure = root.querySelector(".pic"), image = figure.querySelector("img");
    const canvas = document.createElement("canvas"), cross = document.createElement("i"), caption = document.createElement("figcaption");
    canvas.setAttribute("aria-hidden", "true"); cross.className = "cross"; cross.hidden = true;
    image.after(canvas); figure.append(cross, caption);
    view = { root, layers, figure, image, canvas, cross, caption, at: null, zoom: before ? before.zoom : 1, x: 0, y: 0, source: "", tiles: before ? before.tiles : new Map(), blocks: null };
    if (before && before.at) {
      const [high, wide] = layers[0].about.shape || [1, 1]; // what was looked at is looked at in the new one, too
      view.at = [Math.min(before.at[0], wide), Math.min(before.at[1], high)];
      cross.hidden = before.cross.hidden;
    } else said("values", "point at the picture, tap it, or use the arrow keys in it: its values stand here");
    if (before && before.zoom > 1) { const same = figure.clientWidth / before.figure.wide; view.x = before.x * same; view.y = before.y * same; }
    figure.wide = figure.clientWidth;
    image.addEventListener("load", paint);
    image.addEventListener("error", () => said("scale", "this picture is not there any more: it was replaced, or its product has taken its place"));
    if (kept.which === 1 && !layers[1]) kept.which = null;
    listen();
    show(kept.which ?? +root.dataset.shown);
    if (blinked && layers[1]) blink();
  }
  const shownLayer = () => view.layers[view.shown === "difference" ? 0 : view.shown];
  const said = (name, text) => { view.root.querySelector("#" + name).textContent = text; };

  function show(which) {
    if (!view) return;
    if (which === "difference") { compare(); return; }
    const layer = view.layers[which];
    if (!layer) { said("scale", alone()); return; }
    view.shown = which;
    view.blocks = null;
    const full = view.zoom > 1.2;
    view.source = full || !layer.about.fixed || scaleOf(layer.about) !== "fixed" ? "automatic" : "fixed";
    const address = `/image/${layer.where}?w=${full ? "full" : view.source === "fixed" ? "fixed" : "512"}`;
    if (view.image.getAttribute("src") !== address) view.image.src = address;
    else if (view.image.complete) paint();
    view.caption.textContent = view.layers.length > 1 || kept.which !== null ? layer.name : "";
    file(layer);
    buttons();
    tell();
  }
  // While two blink, both lie on the pixels of the first, so that a star stays where it is.
  const base = () => blinking && view.layers.every((layer) => layer.about.cd) ? view.layers[0] : shownLayer();
  function frame() {
    const shape = base().about.shape;
    if (shape) view.figure.style.aspectRatio = `${shape[1]} / ${shape[0]}`;
  }
  const alone = () => view.layers[0].word === "frame" ? "there is no stack of this sequence yet" : "there is no other picture to compare this one with";

  // From the image to the canvas, through the table; the strip of words below a whole picture stays out.
  function paint() {
    const { image, canvas } = view, layer = shownLayer();
    if (view.blocks || !image.naturalWidth) return;
    canvas.hidden = !readable;
    if (!readable) {
      canvas.dataset.of = image.getAttribute("src");
      frame(); draw();
      said("scale", `${view.source === "fixed" ? "fixed −2 to +10 sigma of the sky" : "automatic"}; this browser lets no page change the scale of a picture`);
      return;
    }
    const [ny, nx] = layer.about.shape || [image.naturalHeight, image.naturalWidth];
    canvas.width = image.naturalWidth;
    canvas.height = Math.min(image.naturalHeight, Math.max(1, Math.round(image.naturalWidth * ny / nx)));
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(image, 0, 0);
    const pixels = pen.getImageData(0, 0, canvas.width, canvas.height), data = pixels.data, greys = table(layer.about, view.source);
    for (let i = 0; i < data.length; i += 4) data[i] = data[i + 1] = data[i + 2] = greys[data[i]];
    pen.putImageData(pixels, 0, 0);
    canvas.dataset.of = image.getAttribute("src");
    frame(); // only now: until here the picture before it is seen
    draw();
    scale(layer.about);
  }
  function scale(about) {
    const name = scaleOf(about);
    if (!name) { said("scale", about.shape ? "this picture has one scale" : "a picture of an earlier release: its greys have no values"); return; }
    const ends = [0, 1].map((part) => number(valueOf(about[name], EMPTY + SPAN * untuned(part, stillOf(about))), 4));
    const words = name === "fixed" ? "fixed −2 to +10 sigma of the sky" : kept.scale === "fixed" ? "automatic (it has no sky)" : "automatic";
    said("scale", `${words}: black ${ends[0]}, white ${ends[1]} ${about.unit || ""}`.trim());
  }
  function file(layer) {
    view.root.querySelector(".fits").href = `/fits/${layer.where}`;
    view.root.querySelector(".file code").textContent = layer.command;
  }
  function buttons() {
    const on = { f: view.shown === 0, s: view.shown === 1, d: view.shown === "difference", b: !!blinking, a: kept.scale === "automatic" };
    for (const button of view.root.querySelectorAll("[data-key]")) if (button.dataset.key in on) button.setAttribute("aria-pressed", on[button.dataset.key]);
  }

  // -- pan and zoom ---------------------------------------------------------------------------------

  function zoom(factor, x = view.figure.clientWidth / 2, y = view.figure.clientHeight / 2) {
    const before = view.zoom;
    view.zoom = clamp(factor, 1, 16);
    view.x = x - (x - view.x) * view.zoom / before;
    view.y = y - (y - view.y) * view.zoom / before;
    draw();
    if (view.shown !== "difference" && (view.zoom > 1.2) !== (before > 1.2)) show(view.shown);
  }
  function draw() {
    const { figure, image, canvas } = view, wide = figure.clientWidth, high = figure.clientHeight;
    view.x = clamp(view.x, wide * (1 - view.zoom), 0);
    view.y = clamp(view.y, high * (1 - view.zoom), 0);
    figure.classList.toggle("big", view.zoom > 1);
    figure.wide = wide;
    image.style.transform = canvas.style.transform = laid();
    cross();
  }

  // Where the shown one lies: as it is, or, while two blink, where the first has the same sky.
  function laid() {
    const way = placing(), { zoom, x, y } = view;
    if (!way) return `translate(${x}px,${y}px) scale(${zoom})`;
    const own = shownLayer().about.shape[1] / base().about.shape[1] * zoom, large = zoom * view.figure.clientWidth / base().about.shape[1];
    return `matrix(${own * way[0]},${own * way[3]},${own * way[1]},${own * way[4]},${x + large * way[2]},${y + large * way[5]})`;
  }
  // (a b c d e f) from places in the shown picture to places in the first, in pixels from the upper left; null where they are the same.
  function placing() {
    const one = shownLayer(), first = base();
    if (one === first) return null;
    if (!one.way) {
      const at = (x, y) => { const [u, v] = pixelOf(first.about, ...skyOf(one.about, x + 0.5, one.about.shape[0] - y + 0.5)); return [u - 0.5, first.about.shape[0] - v + 0.5]; };
      const reach = one.about.shape[1], zero = at(0, 0), right = at(reach, 0), down = at(0, reach), [a, d, b, e] = [right, down].flatMap((to) => [(to[0] - zero[0]) / reach, (to[1] - zero[1]) / reach]);
      one.way = [a, b, zero[0], d, e, zero[1]];
    }
    return one.way;
  }

  // -- values -----------------------------------------------------------------------------------------

  // The pixel under a place of the figure, counted from 1 at the lower left as in FITS; null beside it.
  function pixelAt(left, top) {
    const shape = shownLayer().about.shape;
    if (!shape) return null;
    const [ny, nx] = shape, large = view.zoom * view.figure.clientWidth / base().about.shape[1], way = placing();
    let u = (left - view.x) / large, v = (top - view.y) / large;
    if (way) { const [a, b, c, d, e, f] = way, all = a * e - b * d; [u, v] = [(e * (u - c) - b * (v - f)) / all, (a * (v - f) - d * (u - c)) / all]; }
    const x = Math.floor(u) + 1, y = ny - Math.floor(v);
    return x >= 1 && y >= 1 && x <= nx && y <= ny ? [x, y] : null;
  }
  function placeOf([x, y]) {
    const large = view.zoom * view.figure.clientWidth / base().about.shape[1], way = placing() || [1, 0, 0, 0, 1, 0];
    const u = x - 0.5, v = shownLayer().about.shape[0] - y + 0.5;
    return [view.x + large * (way[0] * u + way[1] * v + way[2]), view.y + large * (way[3] * u + way[4] * v + way[5])];
  }
  function cross() {
    if (view.cross.hidden || !view.at) return;
    const [left, top] = placeOf(view.at);
    view.cross.style.transform = `translate(${left}px,${top}px)`;
  }
  function look(pixel, { keys = false, cross: marked = false } = {}) {
    if (!pixel) return;
    view.at = pixel;
    view.cross.hidden = !marked;
    view.root.querySelector("#values").setAttribute("aria-live", keys ? "polite" : "off");
    cross();
    tell();
  }
  function step(dx, dy, far) {
    const [ny, nx] = shownLayer().about.shape || [1, 1], by = far ? 10 : 1, { figure } = view;
    const from = view.at || pixelAt(figure.clientWidth / 2, figure.clientHeight / 2) || [1, 1];
    const to = view.cross.hidden ? from : [clamp(from[0] + by * dx, 1, nx), clamp(from[1] + by * dy, 1, ny)];
    const [left, top] = placeOf(to);
    view.x += clamp(left, 0, figure.clientWidth) - left;
    view.y += clamp(top, 0, figure.clientHeight) - top;
    draw();
    look(to, { keys: true, cross: true });
  }
  let waiting = 0, asking = false;
  function tell() {
    clearTimeout(waiting);
    if (!view || !view.at) return;
    const layer = shownLayer(), [x, y] = view.at;
    if (view.shown === "difference") { if (view.blocks) said("values", `pixel ${x}, ${y} (from 1)${block(x, y)}${skyWords(layer.about, x, y)}`); return; }
    const place = tileOf(layer, x, y), tile = view.tiles.get(place);
    if (tile) said("values", words(layer, tile, x, y));
    else waiting = setTimeout(fetchTile, 120, place); // once the pointer rests
  }
  const corner = (at) => TILE * Math.floor((at - 1) / TILE) + 1;
  const tileOf = (layer, x, y) => `/cutout/${layer.where}?x=${corner(x)}&y=${corner(y)}&w=${TILE}`;
  async function fetchTile(place) {
    if (asking) { waiting = setTimeout(fetchTile, 60, place); return; }
    asking = true;
    let tile;
    try {
      const answer = await fetch(place);
      tile = await answer.json();
      if (view && (answer.ok || answer.status < 500)) {
        view.tiles.set(place, tile);
        if (view.tiles.size > TILES) view.tiles.delete(view.tiles.keys().next().value);
      }
    } catch { tile = { error: "the server does not answer" }; } finally { asking = false; }
    if (view && view.tiles.has(place)) tell(); else if (view && tile) said("values", tile.error);
  }
  function words(layer, tile, x, y) {
    const start = `pixel ${x}, ${y} (from 1)`;
    if (tile.error) return `${start}: ${tile.error}`;
    const row = y - tile.y, column = x - tile.x, value = tile.values[row][column], error = tile.errors && tile.errors[row][column];
    const bits = tile.flags ? tile.flags[row][column] : 0, flags = Object.entries(tile.meaning).filter(([bit]) => bits & bit).map(([, word]) => word);
    const unit = tile.unit === "bit" ? "" : tile.unit, known = Object.keys(tile.meaning).reduce((sum, bit) => sum | bit, 0);
    if (bits & ~known) flags.push(`flag ${bits & ~known}`);
    const read = value === null ? "no value" : `${number(value)}${error ? ` ± ${+error.toPrecision(3)}` : ""}${unit ? ` ${unit}` : ""}`;
    return `${start}: ${tile.unit === "bit" ? "" : read}${flags.length ? `${tile.unit === "bit" ? "" : " · "}${flags.join(", ")}` : tile.unit === "bit" ? "good" : ""}${skyWords(layer.about, x, y)}`;
  }

  // (ra, dec) in degrees of a pixel that counts from 1: the tangent plane of what is kept with the picture.
  function skyOf({ crpix, crval, cd }, x, y) {
    const radian = Math.PI / 180, u = x - crpix[0], v = y - crpix[1], dec0 = crval[1] * radian;
    const xi = (cd[0][0] * u + cd[0][1] * v) * radian, eta = (cd[1][0] * u + cd[1][1] * v) * radian;
    const below = Math.cos(dec0) - eta * Math.sin(dec0);
    const ra = crval[0] + Math.atan2(xi, below) / radian, dec = Math.atan2(Math.sin(dec0) + eta * Math.cos(dec0), Math.hypot(xi, below)) / radian;
    return [(ra % 360 + 360) % 360, dec];
  }
  function pixelOf({ crpix, crval, cd }, ra, dec) {
    const radian = Math.PI / 180, a = (ra - crval[0]) * radian, d = dec * radian, dec0 = crval[1] * radian;
    const depth = (Math.sin(d) * Math.sin(dec0) + Math.cos(d) * Math.cos(dec0) * Math.cos(a)) * radian;
    const xi = Math.cos(d) * Math.sin(a) / depth, eta = (Math.sin(d) * Math.cos(dec0) - Math.cos(d) * Math.sin(dec0) * Math.cos(a)) / depth;
    const all = cd[0][0] * cd[1][1] - cd[0][1] * cd[1][0];
    return [crpix[0] + (cd[1][1] * xi - cd[0][1] * eta) / all, crpix[1] + (cd[0][0] * eta - cd[1][0] * xi) / all];
  }
  function sexagesimal(value, digits) {
    const unit = 10 ** digits, all = Math.round(Math.abs(value) * 3600 * unit), s = (all % (60 * unit)) / unit, m = Math.floor(all / (60 * unit));
    return `${String(Math.floor(m / 60)).padStart(2, "0")} ${String(m % 60).padStart(2, "0")} ${s.toFixed(digits).padStart(digits + 3, "0")}`;
  }
  function skyWords(about, x, y) {
    if (!about.cd) return "";
    const [ra, dec] = skyOf(about, x, y);
    return ` · RA ${sexagesimal(ra / 15 % 24, 3)} Dec ${dec < 0 ? "−" : "+"}${sexagesimal(dec, 2)}`;
  }

  // -- difference --------------------------------------------------------------------------------------

  function half(bits) { // a 16-bit float
    const sign = bits & 0x8000 ? -1 : 1, power = (bits >> 10) & 31, rest = bits & 1023;
    return power === 31 ? (rest ? NaN : sign * Infinity) : sign * (power ? 2 ** (power - 15) * (1 + rest / 1024) : 2 ** -14 * rest / 1024);
  }
  const differences = new Map();
  async function compare() {
    const mine = view, [one, other] = view.layers;
    if (!other) { kept.which = null; if (view.shown === undefined) show(0); said("scale", `no difference: ${alone()}`); return; }
    const [ny, nx] = one.about.shape || [512, 512], wide = Math.max(1, Math.ceil(Math.max(nx, ny) / 512));
    const address = `/difference/${one.where}/${other.where}?step=${wide}`;
    if (view.shown === undefined) show(0);
    said("scale", `difference ${one.word} − ${other.word}: it is made`);
    let why = "the server does not answer", found = differences.get(address);
    try {
      if (!found) {
        const answer = await fetch(address);
        if (!answer.ok) { why = (await answer.json()).error; throw new Error(why); }
        const bytes = new Uint8Array(await answer.arrayBuffer()), end = bytes.indexOf(10);
        found = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
        const pixels = new DataView(bytes.buffer, end + 1);
        found.values = Float32Array.from({ length: found.nx * found.ny }, (_, i) => half(pixels.getUint16(2 * i, true)));
        differences.clear(); differences.set(address, found); // the last one: blinking costs nothing
      }
    } catch { if (view === mine) { kept.which = null; said("scale", why); } return; }
    if (view !== mine || kept.which !== "difference") return;
    view.shown = "difference"; view.blocks = found;
    frame();
    view.caption.textContent = `${one.name} − ${other.name}`;
    file(one); buttons(); contrast(); draw(); tell();
  }
  // Grey 128 is zero; what has no value is black.
  function contrast() {
    view.canvas.hidden = false;
    const { canvas, blocks } = view, [ny, nx] = view.layers[0].about.shape, reach = REACH / kept.contrast;
    const small = document.createElement("canvas");
    small.width = blocks.nx; small.height = blocks.ny;
    const pen = small.getContext("2d"), pixels = pen.createImageData(blocks.nx, blocks.ny);
    for (let i = 0; i < blocks.values.length; i++) {
      const value = blocks.values[i], row = blocks.ny - 1 - Math.floor(i / blocks.nx), at = 4 * (row * blocks.nx + i % blocks.nx);
      const grey = Number.isNaN(value) ? 0 : Math.round(128 + 108 * clamp(value / reach, -1, 1));
      pixels.data[at] = pixels.data[at + 1] = pixels.data[at + 2] = grey; pixels.data[at + 3] = 255;
    }
    pen.putImageData(pixels, 0, 0);
    canvas.width = nx; canvas.height = ny;
    const large = canvas.getContext("2d", { willReadFrequently: true });
    large.imageSmoothingEnabled = false;
    large.drawImage(small, 0, ny - blocks.ny * blocks.step, blocks.nx * blocks.step, blocks.ny * blocks.step);
    canvas.dataset.of = "difference";
    const [one, other] = view.layers, end = number(+(blocks.sigma * reach).toPrecision(3)), mean = blocks.step > 1 ? `, means of ${blocks.step} × ${blocks.step} pixels` : "";
    said("scale", `difference ${one.word} − ${other.word}, less its median ${number(blocks.level, 4)}: black −${end}, grey 0, white +${end} ${blocks.unit}`
      + ` (±${+reach.toPrecision(2)} sigma)${mean}; aligned ${blocks.aligned}, ${Math.round(100 * blocks.overlap)} % in common`);
  }
  function block(x, y) {
    const { blocks } = view, value = blocks.values[Math.floor((y - 1) / blocks.step) * blocks.nx + Math.floor((x - 1) / blocks.step)];
    return Number.isNaN(value) ? ": nothing to compare" : `: difference ${number(+(value * blocks.sigma).toPrecision(4))} ${blocks.unit}`;
  }

  // -- pointer and keys --------------------------------------------------------------------------------

  function listen() {
    const { figure, root } = view;
    const inside = (event) => { const box = figure.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    let from = null, begun = null;
    figure.addEventListener("wheel", (event) => { if (view.zoom === 1 && event.deltaY > 0) return; event.preventDefault(); zoom(view.zoom * (event.deltaY < 0 ? 1.25 : 0.8), ...inside(event)); }, { passive: false });
    figure.addEventListener("dblclick", (event) => zoom(view.zoom > 1 ? 1 : 2, ...inside(event)));
    figure.addEventListener("pointerdown", (event) => {
      begun = [event.clientX, event.clientY];
      if (view.zoom > 1) { from = [event.clientX - view.x, event.clientY - view.y]; figure.setPointerCapture(event.pointerId); }
    });
    figure.addEventListener("pointermove", (event) => {
      if (from) { view.x = event.clientX - from[0]; view.y = event.clientY - from[1]; draw(); }
      if (event.pointerType === "mouse") look(pixelAt(...inside(event)));
    });
    figure.addEventListener("pointerup", (event) => {
      if (begun && Math.hypot(event.clientX - begun[0], event.clientY - begun[1]) < 6) look(pixelAt(...inside(event)), { cross: event.pointerType !== "mouse" });
      from = begun = null;
    });
    figure.addEventListener("pointercancel", () => { from = begun = null; });
    figure.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (way && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); step(...way, event.shiftKey); }
    });
    root.querySelector(".bar").addEventListener("click", (event) => { const button = event.target.closest("[data-key]"); if (button) keys[button.dataset.key](); });
    root.querySelector(".copy").addEventListener("click", copy);
  }
  async function copy() {
    const code = view.root.querySelector(".file code"), button = view.root.querySelector(".copy");
    try { await navigator.clipboard.writeText(code.textContent); button.textContent = "copied"; } catch {
      getSelection().selectAllChildren(code); // not allowed, as on a page that is not on this machine
      button.textContent = "marked: copy it";
    }
  }
  function stop() { clearInterval(blinking); blinking = 0; }
  function choose(which) { stop(); kept.which = which; show(which); }
  function blink() {
    if (blinking) { stop(); show(kept.which ?? +view.root.dataset.shown); return; }
    if (!view.layers[1]) { said("scale", alone()); return; }
    if (kept.which === "difference") kept.which = null;
    blinking = setInterval(() => { if (view) show(view.shown === 1 ? 0 : 1); }, 600);
    show(view.shown === 0 ? 1 : 0);
  }
  function again() { if (view.shown === "difference") contrast(); else show(view.shown); buttons(); }
  const tune = (name, factor) => { kept[name] = clamp(kept[name] * factor, 0.2, 5); if (Math.abs(kept[name] - 1) < 0.01) kept[name] = 1; if (view.blocks) contrast(); else paint(); };
  const all = {
    f: () => choose(0), s: () => choose(view.shown === 1 ? 0 : view.layers[1] ? 1 : (said("scale", alone()), 0)), b: blink,
    d: () => { if (view.shown === "difference") { choose(0); return; } stop(); kept.which = "difference"; show("difference"); },
    a: () => { kept.scale = kept.scale === "fixed" ? "automatic" : "fixed"; again(); },
    "+": () => tune("bright", 1.25), "-": () => tune("bright", 0.8), ".": () => tune("contrast", 1.25), ",": () => tune("contrast", 0.8),
    z: () => zoom(view.zoom / 2), x: () => zoom(view.zoom * 2),
    0: () => zoom(1), 1: () => zoom(1.5), 2: () => zoom(2), 3: () => zoom(4), 4: () => zoom(8),
  };
  const keys = Object.fromEntries(Object.entries(all).map(([key, does]) => [key, () => { if (view) does(); }]));

  // Back by one: true when there was something to leave.
  function back() {
    if (!view) return false;
    if (blinking) { blink(); return true; }
    if (!view.cross.hidden) { view.cross.hidden = true; return true; }
    if (view.zoom > 1) { zoom(1); return true; }
    return false;
  }
  addEventListener("resize", () => { if (view) draw(); });
  return { start, keys, back, has: () => view };
})();
