'use strict';
// What is wrong with a layer's load, in words. A layer: {name, tokens, dropped, load: [tokens by expert]}; or, with
// `shares`, of a mean over so many steps that numbers say enough: dropped and load are shares, and tokens is 1.
const STARVING = 0.1;      // of the even share
const DROPPED = 0.1;       // of the tokens
const TOKENS_TO_TELL = 50; // an expert, on average: fewer say nothing yet

const percent = share => (100 * share).toFixed(share < 0.0995 ? 1 : 0) + '\u202f%';
const whole = number => Math.round(number).toLocaleString('en');
const listed = words => words.length < 2 ? words.join('') : words.slice(0, -1).join(', ') + ' and ' + words[words.length - 1];

// exp of the load's entropy: how many experts would share the tokens evenly.
function expertsInUse(load) {
  const sum = load.reduce((total, tokens) => total + tokens, 0);
  return sum ? Math.exp(load.reduce((entropy, tokens) => entropy - (tokens ? tokens / sum * Math.log(tokens / sum) : 0), 0)) : 0;
}

function alarmsOf(layers) {
  const alarms = [];
  for (const {name, tokens, dropped, load, shares} of layers) {
    const sum = load.reduce((total, count) => total + count, 0), experts = load.length;
    const of = number => shares ? 'of the tokens' : `of ${whole(number)} tokens`;
    if ((shares || tokens >= TOKENS_TO_TELL) && dropped > DROPPED * tokens)
      alarms.push({layer: name, kind: 'drops', words: `${percent(dropped / tokens)} ${of(tokens)} found no room with an expert.`});
    if (experts < 2 || !(shares || sum >= TOKENS_TO_TELL * experts)) continue;
    const used = expertsInUse(load);
    if (used < Math.max(1.3, experts / 4)) {
      const busiest = load.map((count, expert) => ({count, expert})).sort((a, b) => b.count - a.count).slice(0, Math.max(1, Math.round(used)));
      alarms.push({layer: name, kind: 'collapse', words: `the router has collapsed: ${percent(busiest.reduce((total, {count}) => total + count, 0) / sum)} ${of(sum)} go to `
        + `${busiest.length > 1 ? 'experts' : 'expert'} ${listed(busiest.map(({expert}) => String(expert)))} of ${experts}.`});
      continue;
    }
    const starving = load.map((count, expert) => ({count, expert})).filter(({count}) => count < STARVING * sum / experts);
    if (starving.length)
      alarms.push({layer: name, kind: 'starving', words: `${starving.length > 1 ? 'experts' : 'expert'} ${listed(starving.map(({expert}) => String(expert)))} of ${experts} `
        + `${starving.length > 1 ? 'starve' : 'starves'}: ${percent(starving.reduce((total, {count}) => total + count, 0) / sum)} ${of(sum)}, an even share is `
        + `${percent(starving.length / experts)}.`});
  }
  return alarms;
}

// Neighbouring experts differ in hue, and beyond a dozen in strength too; the number is shown beside the colour.
function paint(element, expert, experts) {
  element.style.setProperty('--hue', experts <= 12 ? Math.round(360 * expert / experts) : Math.round(expert * 137.5) % 360);
  element.style.setProperty('--sat', experts > 12 && expert % 2 ? 0.55 : 1);
}

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Bars of a layer's load, over a line at the even share.
function loadRow({name, tokens, dropped, load}) {
  const row = make('div', 'load'), words = make('div', 'words'), bars = make('div', 'bars'), numbers = make('div', 'numbers');
  const sum = load.reduce((total, count) => total + count, 0), even = 1 / load.length, most = Math.max(...load), busiest = load.indexOf(most);
  const top = Math.max(2 * even, sum ? most / sum : 0);
  words.append(make('b', '', name), make('span', 'quiet number', sum ? `busiest ${busiest}: ${percent(most / sum)} · even ${percent(even)} · dropped ${percent(tokens ? dropped / tokens : 0)}` : 'no tokens yet'));
  bars.setAttribute('role', 'img');
  bars.setAttribute('aria-label', `${name}: ` + load.map((count, expert) => `expert ${expert} ${percent(sum ? count / sum : 0)}`).join(', '));
  bars.style.setProperty('--even', (100 * even / top).toFixed(2) + '%');
  load.forEach((count, expert) => {
    const bar = make('i');
    bar.style.height = (sum ? 100 * count / sum / top : 0).toFixed(2) + '%';
    bar.title = `expert ${expert}: ${percent(sum ? count / sum : 0)}`;
    paint(bar, expert, load.length);
    bars.append(bar);
    if (load.length <= 32) numbers.append(make('span', '', expert));
  });
  row.append(words, bars, numbers);
  return row;
}

function showAlarms(list, none, layers) {
  const alarms = alarmsOf(layers), shown = alarms.map(({layer, words}) => `${layer}: ${words}`).join('\n');
  none.hidden = alarms.length > 0;
  if (list.dataset.shown === shown) return;  // said once
  list.dataset.shown = shown;
  list.replaceChildren(...alarms.map(({layer, words}) => {
    const item = make('li');
    item.append(make('b', '', layer + ': '), words);
    return item;
  }));
}
