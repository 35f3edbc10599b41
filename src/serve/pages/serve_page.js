const at = id => document.getElementById(id);
const BLANK = /<extra_id_(\d+)>/g;

function headers() {
  return {'Content-Type': 'application/json', ...(at('key').value ? {Authorization: 'Bearer ' + at('key').value} : {})};
}

async function ask(path, body, signal) {
  const answer = await fetch(path, {method: body ? 'POST' : 'GET', headers: headers(), body: body && JSON.stringify(body), signal});
  if (answer.status === 401) at('key_label').hidden = false;
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error?.message ?? `status ${answer.status}`);
  return answer;
}

// --- The answer

// The prompt with what the output has for its blanks; the output as it is where the prompt has none.
function showAnswer(prompt, output, running) {
  const answer = at('answer');
  answer.replaceChildren();
  answer.classList.toggle('cursor', running);
  if (!prompt.match(BLANK)) return answer.append(output);
  const parts = output.split(BLANK), filled = new Map();  // text, number, text, number, text, ...
  for (let n = 1; n < parts.length; n += 2) if (!filled.has(parts[n])) filled.set(parts[n], parts[n + 1].trim());
  prompt.split(BLANK).forEach((part, n) => {
    if (n % 2 === 0) return answer.append(part);
    answer.append(filled.get(part) ? make('mark', '', filled.get(part)) : make('span', 'blank', part));
  });
  at('raw').textContent = output && 'Written: ' + output;
}

// Calls `take` with each event of a stream.
async function readEvents(answer, take) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = '';;) {
    const {value, done} = await reader.read();
    if (done) return;
    const events = (rest + value).split('\n\n');
    rest = events.pop();
    for (const event of events) if (event !== 'data: [DONE]') take(JSON.parse(event.slice('data: '.length)));
  }
}

let running = null;  // of the answer that is coming

async function run() {
  if (running) return;
  running = new AbortController();
  const prompt = at('prompt').value, start = performance.now();
  const number = id => Number(at(id).value);
  const body = {prompt, stream: true, max_tokens: number('max_tokens'), ...(number('temperature') > 0 ? {temperature: number('temperature'), seed: number('seed')} : {}),
    ...(number('beams') > 1 ? {beams: number('beams')} : {})};
  let output = '', tokens = null, first = 0, reason = '';
  at('run').disabled = !(at('stop').disabled = false);
  for (const id of ['error', 'raw', 'timing', 'detail']) at(id).textContent = '';
  showAnswer(prompt, '', true);
  try {
    showRouting(prompt, null);
    await readEvents(await ask('/v1/completions', body, running.signal), event => {
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices[0];
      if (choice.text && !first) first = performance.now();
      output += choice.text;
      tokens = choice.tokens ?? tokens;
      reason = choice.finish_reason ?? reason;
      showAnswer(prompt, output, true);
    });
    const seconds = (performance.now() - start) / 1000;
    at('timing').textContent = `${tokens.length} tokens in ${seconds.toFixed(2)} s, the first after ${((first - start) / 1000).toFixed(3)} s; ended by ${reason === 'stop' ? 'the model' : 'the limit of tokens'}`;
  } catch (error) {
    if (error.name === 'AbortError') at('timing').textContent = 'stopped';
    else at('error').textContent = error.message;
  }
  showAnswer(prompt, output, false);
  running = null;
  at('run').disabled = !(at('stop').disabled = true);
  if (output) showRouting(prompt, tokens ?? output);
}

// --- Experts, token by token

let routed = 0;  // the latest question; answers to earlier ones are late

async function showRouting(content, output) {
  if (at('routing').dataset.dense) return;
  const number = ++routed;
  try {
    const stacks = await (await ask('/routing', output?.length ? {content, output} : {content})).json();
    if (number !== routed) return;
    at('routing').hidden = false;
    at('stacks').replaceChildren(...Object.entries(stacks).filter(([, stack]) => stack.layers.length).map(([name, stack]) => stackRows(name, stack)));
  } catch (error) {
    if (!at('error').textContent) at('error').textContent = 'routing: ' + error.message;
  }
}

function stackRows(name, stack) {
  const section = make('div'), grid = make('div');
  section.append(make('h3', '', name === 'encoder' ? 'Encoder: what it read' : 'Decoder: what it had before it as it wrote each next token'), grid);
  grid.setAttribute('role', 'grid');
  grid.setAttribute('aria-label', name);
  const cells = stack.layers.map(layer => {
    const row = make('div', 'layer'), tokens = make('div', 'tokens');
    row.setAttribute('role', 'row');
    row.append(make('span', '', layer.layer), tokens);
    grid.append(row);
    return stack.tokens.map(({id, piece}, n) => {
      const experts = layer.experts[n], text = name === 'decoder' && n === 0 && id === 0 ? 'start' : piece.replaceAll('\u2581', '') || '\u2423';
      const cell = make('span', 'token' + (piece.startsWith('\u2581') ? ' word' : '') + (experts.length ? '' : ' none'), text);
      if (experts.length) {
        paint(cell, experts[0], layer.num_experts);
        cell.append(make('sub', '', experts.join('\u202f')));
      }
      cell.setAttribute('role', 'gridcell');
      cell.setAttribute('aria-label', `${text}, ${experts.length ? 'expert ' + experts.join(' and ') : 'no expert'}`);
      cell.tabIndex = -1;
      tokens.append(cell);
      return cell;
    });
  });
  cells[0][0].tabIndex = 0;
  const look = (layer, n) => {
    grid.querySelectorAll('.same').forEach(cell => cell.classList.remove('same'));
    cells.forEach(row => row[n].classList.add('same'));
    at('detail').textContent = `${stack.tokens[n].piece} (${stack.tokens[n].id}), ${name}: ` + stack.layers.map(({layer: label, experts, gates}) =>
      `${label} ${experts[n].length ? `expert ${experts[n].join(' and ')}, gate ${gates[n].toFixed(2)}` : 'no expert: it went past the layer'}`).join(' · ');
  };
  cells.forEach((row, layer) => row.forEach((cell, n) => {
    cell.addEventListener('focus', () => {
      grid.querySelector('[tabindex="0"]').tabIndex = -1;
      cell.tabIndex = 0;
      look(layer, n);
    });
    cell.addEventListener('mouseenter', () => look(layer, n));
    cell.addEventListener('click', () => cell.focus());
    cell.addEventListener('keydown', event => {
      const [down, right] = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -n], End: [0, row.length - 1 - n]}[event.key] ?? [0, 0];
      const next = cells[layer + down]?.[n + right];
      if (!next || next === cell) return;
      event.preventDefault();
      next.focus();
    });
  }));
  return section;
}

// --- What the server does, from its metrics

// {name: [{labels: {...}, value}]}
function readMetrics(text) {
  const metrics = {};
  for (const [, name, labels, value] of text.matchAll(/^(\w+)(?:\{([^}]*)\})? (\S+)$/gm)) {
    const read = Object.fromEntries([...(labels ?? '').matchAll(/(\w+)="([^"]*)"/g)].map(([, key, word]) => [key, word]));
    (metrics[name] ??= []).push({labels: read, value: Number(value)});
  }
  return metrics;
}

function layersOf(metrics) {
  const layers = new Map();
  for (const {labels, value} of metrics.switchyard_routed_tokens_total ?? []) layers.set(labels.layer, {name: labels.layer, tokens: value, dropped: 0, load: []});
  for (const {labels, value} of metrics.switchyard_dropped_tokens_total ?? []) layers.get(labels.layer).dropped = value;
  for (const {labels, value} of metrics.switchyard_expert_tokens_total ?? []) layers.get(labels.layer).load[Number(labels.expert)] = value;
  return [...layers.values()];
}

function between(now, before) {
  return now.map(layer => {
    const old = before.find(({name}) => name === layer.name);
    return old ? {...layer, tokens: layer.tokens - old.tokens, dropped: layer.dropped - old.dropped, load: layer.load.map((count, n) => count - old.load[n])} : layer;
  });
}

const history = [];  // {time, layers, generated}, of the last minute

async function look() {
  try {
    const metrics = readMetrics(await (await ask('/metrics')).text()), value = name => metrics[name]?.[0].value ?? 0;
    const time = performance.now() / 1000, now = {time, layers: layersOf(metrics), generated: value('switchyard_generated_tokens_total')};
    while (history.length && history[0].time < time - 61) history.shift();
    const recent = history.find(entry => entry.time > time - 5.5);
    history.push(now);
    const rate = recent ? (now.generated - recent.generated) / (time - recent.time) : 0;
    at('state').textContent = `${value('switchyard_requests_running')} running in ${value('switchyard_slots')} slots · ${value('switchyard_requests_queued')} waiting · ${whole(rate)} tokens/s · ${whole(now.generated)} written`;
    const span = at('span').value === '0' ? now.layers : between(now.layers, history[0].layers);
    if (!at('routing').dataset.dense) at('loads').replaceChildren(...span.map(loadRow));
    if (!span.length && !at('routing').dataset.dense) at('loads').replaceChildren(make('p', 'quiet small', 'Nothing has passed an expert yet.'));
    showAlarms(at('alarms'), at('no_alarms'), span);
  } catch (error) {
    at('state').textContent = error instanceof TypeError ? 'the server does not answer' : error.message;
  }
  setTimeout(look, document.hidden ? 10000 : 1000);
}

async function introduce() {
  const {model_path: model, switchyard: shape} = await (await ask('/props')).json();
  at('model').textContent = model;
  document.title = model + ' - Switchyard';
  at('max_tokens').max = shape.max_tokens;
  at('max_tokens').value = Math.min(64, shape.max_tokens);
  if (shape.encoder.sparse.length + shape.decoder.sparse.length) return;
  at('routing').dataset.dense = 'true';
  at('loads').replaceChildren(make('p', 'quiet small', 'This model is dense: it has no experts.'));
  at('no_alarms').textContent = 'None: the model is dense.';
}

at('ask').addEventListener('submit', event => {
  event.preventDefault();
  run();
});
at('stop').addEventListener('click', () => running?.abort());
at('blank').addEventListener('click', () => {
  const prompt = at('prompt'), used = [...prompt.value.matchAll(BLANK)].map(([, number]) => Number(number));
  prompt.setRangeText(`<extra_id_${used.length ? Math.max(...used) + 1 : 0}>`, prompt.selectionStart, prompt.selectionEnd, 'end');
  prompt.focus();
});
document.addEventListener('keydown', event => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) run();
  if (event.key === 'Escape') running?.abort();
});
at('key').addEventListener('change', () => introduce().catch(() => {}));
introduce().catch(error => { at('error').textContent = error.message; });
look();
