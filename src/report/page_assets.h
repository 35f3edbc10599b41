// The style sheet and script of a report. Hovering over a chart shows every line's value at the pointer.
#pragma once

namespace switchyard {

inline constexpr const char* kPageStyle = R"css(
:root { color-scheme: light dark; --page: #fbfbfa; --panel: #ffffff; --text: #22262b; --quiet: #6b7178; --rule: #e3e4e2; --mark: #fff1b8;
  --c0: #2f6db3; --c1: #d1662a; --c2: #2f9a78; --c3: #8a5fb8; --c4: #b8860b; --c5: #c2477a; --c6: #4b7f95; --c7: #7b7b7b; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --panel: #1e2125; --text: #e4e6e8; --quiet: #9aa1a9; --rule: #33373d; --mark: #5a4a12;
  --c0: #6aa8ec; --c1: #ee8f57; --c2: #55c6a2; --c3: #b493e6; --c4: #dcb145; --c5: #ec83ad; --c6: #84b9cf; --c7: #b0b0b0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 28px 24px 64px; background: var(--page); color: var(--text);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 22px; font-weight: 650; margin: 0 0 2px; }
h2 { font-size: 16px; font-weight: 650; margin: 40px 0 12px; padding-bottom: 6px; border-bottom: 1px solid var(--rule); }
h3 { font-size: 14px; font-weight: 600; margin: 22px 0 8px; }
p { margin: 4px 0 12px; max-width: 78ch; } .quiet { color: var(--quiet); }
.grid-2 { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(460px, 100%), 1fr)); gap: 16px; }
figure { margin: 0; padding: 12px 14px 10px; background: var(--panel); border: 1px solid var(--rule); border-radius: 8px; position: relative; min-width: 0; }
figcaption { font-weight: 600; font-size: 13px; margin-bottom: 6px; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--quiet); font-size: 11.5px; font-variant-numeric: tabular-nums; }
svg .label { font-size: 12px; } svg .grid { stroke: var(--rule); stroke-width: 1; } svg .axis { stroke: var(--quiet); stroke-width: 1; }
polyline { fill: none; stroke-linejoin: round; } .line { stroke-width: 1.8; } .faint { stroke-width: 1; opacity: .22; } .marker { stroke: none; }
.line-0 { stroke: var(--c0); } .line-1 { stroke: var(--c1); } .line-2 { stroke: var(--c2); } .line-3 { stroke: var(--c3); }
.line-4 { stroke: var(--c4); } .line-5 { stroke: var(--c5); } .line-6 { stroke: var(--c6); } .line-7 { stroke: var(--c7); }
.marker.line-0, .key.line-0 { fill: var(--c0); background: var(--c0); } .marker.line-1, .key.line-1 { fill: var(--c1); background: var(--c1); }
.marker.line-2, .key.line-2 { fill: var(--c2); background: var(--c2); } .marker.line-3, .key.line-3 { fill: var(--c3); background: var(--c3); }
.marker.line-4, .key.line-4 { fill: var(--c4); background: var(--c4); } .marker.line-5, .key.line-5 { fill: var(--c5); background: var(--c5); }
.marker.line-6, .key.line-6 { fill: var(--c6); background: var(--c6); } .marker.line-7, .key.line-7 { fill: var(--c7); background: var(--c7); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 12.5px; color: var(--quiet); margin: 4px 0 0 48px; }
.key { display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 6px; vertical-align: middle; }
.pixels { image-rendering: pixelated; } .heat-key { width: 300px; margin: 4px 0 10px; }
.scroll { overflow-x: auto; background: var(--panel); border: 1px solid var(--rule); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 14px; text-align: right; white-space: nowrap; border-top: 1px solid var(--rule); } tr:first-child th { border-top: 0; }
th { font-weight: 600; color: var(--quiet); font-size: 12.5px; vertical-align: bottom; } th:first-child, td:first-child { text-align: left; }
td.best { font-weight: 650; } td .key { width: 10px; height: 10px; border-radius: 5px; }
.left th, .left td { text-align: left; white-space: normal; }
.sample { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px; padding: 10px 14px; margin-bottom: 10px; }
.sample dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 16px; margin: 0; } .sample dt { color: var(--quiet); } .sample dd { margin: 0; }
mark { background: var(--mark); color: inherit; border-radius: 3px; padding: 0 3px; } .blank { color: var(--quiet); border-bottom: 1.5px solid var(--quiet); padding: 0 4px; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--quiet); } pre { overflow-x: auto; font-size: 12px; padding: 10px 14px; background: var(--panel); border: 1px solid var(--rule); border-radius: 8px; }
.tip { position: absolute; pointer-events: none; background: var(--panel); border: 1px solid var(--rule); border-radius: 6px; padding: 5px 9px; font-size: 12px;
  box-shadow: 0 2px 8px #0003; display: none; white-space: nowrap; z-index: 2; font-variant-numeric: tabular-nums; } .tip b { font-weight: 600; }
.cross { stroke: var(--quiet); stroke-width: 1; stroke-dasharray: 3 3; }
)css";

inline constexpr const char* kPageScript = R"js(
function showValuesAtPointer(svg) {
  const [left, right, top, bottom] = svg.dataset.plot.split(' ').map(Number);
  const [xLow, xHigh, yLow, yHigh] = svg.dataset.range.split(' ').map(Number);
  const [xKind, yKind] = svg.dataset.kind.split(' ');
  const lines = [...svg.querySelectorAll('polyline[data-name]')].map(line => ({name: line.dataset.name, color: getComputedStyle(line).stroke,
    points: line.getAttribute('points').split(' ').map(pair => pair.split(',').map(Number))}));
  const tip = document.createElement('div');
  tip.className = 'tip';
  svg.parentNode.append(tip);
  const cross = document.createElementNS('http://www.w3.org/2000/svg', 'line');
  cross.setAttribute('class', 'cross');
  cross.setAttribute('y1', top);
  cross.setAttribute('y2', bottom);
  const short = value => Math.abs(value) >= 1e6 ? (value / 1e6).toPrecision(4) + 'M' : Math.abs(value) >= 1e4 ? (value / 1e3).toPrecision(4) + 'k' : String(Number(value.toPrecision(4)));
  const time = value => value < 120 ? value.toPrecision(3) + ' s' : value < 7200 ? (value / 60).toPrecision(3) + ' min' : (value / 3600).toPrecision(3) + ' h';
  svg.addEventListener('mousemove', event => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    if (x < left || x > right) return hide();
    const xValue = xLow + (x - left) / (right - left) * (xHigh - xLow);
    tip.replaceChildren();
    const head = document.createElement('div');
    head.textContent = xKind === 'seconds' ? time(xValue) : xKind === 'log2' ? Math.round(2 ** xValue) + ' devices' : 'step ' + Math.round(xValue);
    tip.append(head);
    for (const line of lines) {
      const near = line.points.reduce((best, point) => Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best);
      const value = yLow + (bottom - near[1]) / (bottom - top) * (yHigh - yLow);
      const row = document.createElement('div'), key = document.createElement('i'), number = document.createElement('b');
      key.className = 'key';
      key.style.background = line.color;
      number.textContent = yKind === 'fraction' ? (100 * value).toPrecision(3) + '%' : short(value);
      row.append(key, line.name + '  ', number);
      tip.append(row);
    }
    cross.setAttribute('x1', x);
    cross.setAttribute('x2', x);
    svg.append(cross);
    tip.style.display = 'block';
    const frame = svg.parentNode.getBoundingClientRect(), place = event.clientX - frame.left;
    tip.style.left = (place + tip.offsetWidth + 20 > frame.width ? place - tip.offsetWidth - 12 : place + 12) + 'px';
    tip.style.top = (event.clientY - frame.top + 12) + 'px';
  });
  const hide = () => { tip.style.display = 'none'; cross.remove(); };
  svg.addEventListener('mouseleave', hide);
}
document.querySelectorAll('svg.chart').forEach(showValuesAtPointer);
)js";

}  // namespace switchyard
