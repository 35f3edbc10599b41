const at = id => document.getElementById(id);
const WAIT = 2000;  // milliseconds between looks, or ten times what an answer took

const duration = seconds => seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${(seconds / 60).toFixed(1)} min` : seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} days`;

function runRow(run) {
  const row = make('div', 'run'), facts = make('div', 'facts number'), bar = make('progress');
  bar.max = run.steps || 1;
  bar.value = run.step;
  bar.setAttribute('aria-label', `${run.name}: step ${run.step} of ${run.steps}`);
  const fact = (name, value) => {
    if (value === null || value === undefined) return;
    const item = make('span', 'quiet', name + ' ');
    item.append(make('b', '', value));
    facts.append(item);
  };
  fact('step', `${whole(run.step)}${run.steps ? ' of ' + whole(run.steps) : ''}`);
  fact('trained', duration(run.seconds));
  fact('left', run.state === 'training' && run.seconds_left !== null ? duration(run.seconds_left) : null);
  fact('tokens/s', run.tokens_per_second && whole(run.tokens_per_second));
  fact('training loss', run.train_loss?.toFixed(4));
  fact('held-out loss', run.eval_loss?.toFixed(4));
  fact('best', run.best_eval_loss?.toFixed(4));
  row.append(make('b', '', `${run.name}: ${run.state}`), bar, facts);
  return row;
}

let version = null;

async function showSections(next) {
  const answer = await fetch('/sections');
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  const open = [...at('sections').querySelectorAll('details')].map(details => details.open), y = scrollY;
  at('sections').innerHTML = await answer.text();
  at('sections').querySelectorAll('details').forEach((details, n) => { details.open = open[n] ?? false; });
  at('sections').querySelectorAll('svg.chart').forEach(showValuesAtPointer);
  scrollTo(0, y);
  version = next;
}

async function look() {
  const start = performance.now();
  try {
    const answer = await fetch('/state'), state = await answer.json();
    if (!answer.ok) throw new Error(state.error.message);
    at('name').textContent = state.runs.map(run => run.name).join(', ');
    document.title = state.runs.map(run => `${run.name} ${run.steps ? Math.floor(100 * run.step / run.steps) + '%' : run.step}`).join(', ') + ' - Switchyard watch';
    at('runs').replaceChildren(...state.runs.map(runRow));
    const several = state.runs.length > 1;
    const layers = state.runs.flatMap(run => run.layers.map(layer => ({...layer, name: several ? `${run.name} ${layer.name}` : layer.name, tokens: 1, shares: true})));
    at('load_panel').hidden = !layers.length;
    at('loads').replaceChildren(...layers.map(loadRow));
    showAlarms(at('alarms'), at('no_alarms'), layers);
    if (state.version !== version) await showSections(state.version);
    at('state').textContent = `looked at ${new Date().toLocaleTimeString()}`;
  } catch (error) {
    at('state').textContent = error instanceof TypeError ? 'the watching program does not answer' : error.message;
  }
  setTimeout(look, Math.max(document.hidden ? 5 * WAIT : WAIT, 10 * (performance.now() - start)));
}
look();
