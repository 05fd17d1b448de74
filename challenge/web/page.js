const WORD = /([\p{L}\p{M}\p{N}]+)/u; // split() keeps what the group captures
// Nobody sees these within a word; the service drops them too
const HIDDEN =
  /[\u00ad\u034f\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\u{e0000}-\u{e01ef}]/gu;
const FAINT = 0.005; // what rounds to 0.00 is not coloured
const MOST_TERMS = 5; // named below the text
const MOST_ROWS = 200; // a browser is slow with more

const numberFormat = new Intl.NumberFormat("en");
const percentFormat = new Intl.NumberFormat("en", {
  style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1,
});
const logitFormat = new Intl.NumberFormat("en", {
  signDisplay: "exceptZero", minimumFractionDigits: 2, maximumFractionDigits: 2,
});
const scoreFormat = new Intl.NumberFormat("en", { minimumFractionDigits: 3, maximumFractionDigits: 3 });
const dateFormat = new Intl.DateTimeFormat("en-GB", { dateStyle: "long", timeStyle: "short" });

const byId = (id) => document.getElementById(id);
const element = (name, properties, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children); // strings become text, never HTML
  return made;
};
const count = (n, noun) => `${numberFormat.format(n)} ${noun}${n === 1 ? "" : "s"}`;
const signed = (logit) => logitFormat.format(logit).replace("-", "−");
const sum = (numbers) => numbers.reduce((total, n) => total + n, 0);
const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));

// --- The service

/** What people can put right; anything else that is thrown is a fault of this page. */
class ServiceError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const describeError = (body) => {
  try {
    const { detail } = JSON.parse(body);
    return Array.isArray(detail) ? detail.map(({ loc, msg }) => `${loc.join(" ")}: ${msg}`).join("; ") : detail;
  } catch {
    return body; // an upload that is too large is answered in plain text
  }
};

/** Return the UTF-8 bytes of a text as characters, since a header holds nothing else. */
const toBytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));

/** Ask the service, with a form that has a file or without one; return the answer as the text that it is. */
const request = async (route, file) => {
  const options = { headers: {} };
  const token = sessionStorage.getItem("token");
  if (token) options.headers.authorization = `Bearer ${toBytes(token)}`;
  if (file) {
    options.method = "POST";
    options.body = new FormData();
    options.body.append("file", file);
  }
  let response, body;
  try {
    response = await fetch(route, options);
    body = await response.text();
  } catch {
    throw new ServiceError("No answer: the service can't be reached, or the file can't be read.");
  }
  if (!response.ok) throw new ServiceError(describeError(body) || response.statusText, response.status);
  return body;
};

const showModel = async () => {
  const model = byId("model");
  const trouble = byId("trouble");
  try {
    const { genres, saved } = JSON.parse(await request("health"));
    byId("untrained").hidden = saved !== null;
    trouble.textContent = "";
    if (saved === null) {
      model.textContent = "";
      return;
    }
    const date = new Date(saved * 1000);
    const time = element("time", { dateTime: date.toISOString() }, dateFormat.format(date));
    model.replaceChildren(`The model knows ${count(genres.length, "genre")}. It was saved on `, time, ".");
  } catch (error) {
    model.textContent = "";
    byId("untrained").hidden = true;
    trouble.textContent = error.message;
  }
};

// --- Forms

/** Say below a form how far it is, or else what is wrong. */
const say = (form, progress, fault = "") => {
  form.querySelector("[role=status]").textContent = progress;
  form.querySelector("[role=alert]").textContent = fault;
};

/** Do what a form is for. Its controls wait meanwhile; the progress, and then the result, stands below them. */
const work = async (form, doing, task) => {
  const controls = form.querySelector("fieldset");
  const seconds = form.querySelector(".seconds");
  const focused = document.activeElement;
  const start = performance.now();
  const showSeconds = () => (seconds.textContent = `${Math.floor((performance.now() - start) / 1000)} s`);
  const clock = setInterval(showSeconds, 1000);
  showSeconds();
  say(form, doing);
  controls.disabled = true;
  try {
    say(form, await task());
  } catch (error) {
    say(form, "", error.message);
    for (const former of form.parentElement.querySelectorAll(".result")) former.hidden = true;
    if (!(error instanceof ServiceError)) reportError(error);
  } finally {
    clearInterval(clock);
    controls.disabled = false;
    if (document.activeElement === document.body) focused.focus(); // which disabling took away
    showModel();
  }
};

const turns = new Map(); // the last turn of each form, a promise that is always kept

/** Let a form do something, as soon as it has done what it was given before: one thing at a time. */
const attend = (form, doing, task) => {
  turns.set(form, Promise.resolve(turns.get(form)).then(() => work(form, doing, task)));
};

const row = (header, ...cells) =>
  element("tr", {}, element("th", { scope: "row" }, header), ...cells.map((cell) => element("td", {}, cell)));

// --- One synopsis

const toCsv = (synopsis) => new File([`movie_id,synopsis\n1,"${synopsis.replaceAll('"', '""')}"\n`], "synopsis.csv");

/** Return the words of a text as the service sees them: Unicode's form NFKC, lower case, then runs of word characters. */
const readWords = (text) =>
  text.replace(HIDDEN, "").normalize("NFKC").toLowerCase().split(WORD).filter((_, index) => index % 2);

/** Cut a text into pieces, in turn between words and in words. A sign may be a part of a word in form NFKC, as ™ is. */
const cutText = (text) => {
  const pieces = [""];
  for (const character of text) {
    const visible = character.replace(HIDDEN, "");
    const inWord = visible ? WORD.test(visible.normalize("NFKC")) : pieces.length % 2 === 0;
    if (inWord !== (pieces.length % 2 === 0)) pieces.push("");
    pieces[pieces.length - 1] += character;
  }
  return pieces;
};

const readGenre = ([name, { "(bias)": bias, ...terms }]) => {
  const evidence = sum(Object.values(terms));
  const logit = evidence + bias;
  return { name, bias, evidence, logit, probability: sigmoid(logit), terms: new Map(Object.entries(terms)) };
};

/** Return what a word adds where it stands: its own term, and half of each pair that it makes with its neighbours. */
const weighWord = ({ terms }, before, word, after) => {
  const pairs = (terms.get(`${before} ${word}`) ?? 0) + (terms.get(`${word} ${after}`) ?? 0);
  return (terms.get(word) ?? 0) + pairs / 2;
};

/** Return a word, marked by how it speaks, in comparison with the strongest term. */
const markWord = (word, logit, genre, strongest) => {
  const side = logit > 0 ? "for" : "against";
  const mark = element("mark", { className: side, title: `${signed(logit)} ${side} ${genre.name}` }, word);
  mark.style.setProperty("--strength", Math.min(1, Math.abs(logit) / strongest));
  return mark;
};

const listTerms = (terms) => terms.map(([term, logit]) => `${term}\u00a0${signed(logit)}`).join(", ") || "nothing";

const explain = (synopsis, genre, strongest) => {
  const terms = [...genre.terms].sort(([, a], [, b]) => b - a);
  byId("chosen").textContent = genre.name;
  byId("text").replaceChildren();
  byId("coloured").replaceChildren();
  const pieces = cutText(synopsis).map((piece, index) => ({ piece, words: index % 2 ? readWords(piece) : [] }));
  const words = ["(start)", ...pieces.flatMap((piece) => piece.words), ""];
  let place = 0;
  for (const { piece, words: own } of pieces) {
    const logit = sum(own.map((_, index) => weighWord(genre, ...words.slice(place + index, place + index + 3))));
    place += own.length;
    const coloured = Math.abs(logit) >= FAINT;
    byId("text").append(coloured ? markWord(piece, logit, genre, strongest) : piece);
    if (coloured) byId("coloured").append(row(piece, signed(logit)));
  }
  byId("details").hidden = !byId("coloured").hasChildNodes();
  byId("for").textContent = listTerms(terms.filter(([, logit]) => logit >= FAINT).slice(0, MOST_TERMS));
  byId("against").textContent = listTerms(terms.filter(([, logit]) => logit <= -FAINT).reverse().slice(0, MOST_TERMS));
  byId("words").textContent = signed(genre.evidence);
  byId("bias").textContent = signed(genre.bias);
  byId("sum").textContent = `${signed(genre.logit)}, which makes ${percentFormat.format(genre.probability)}`;
};

const makeBar = (share) => {
  const bar = element("span", { className: "bar" });
  bar.style.setProperty("--share", share);
  return bar;
};

const genreChoice = (genre, best, choose) => {
  const radio = element("input", { type: "radio", name: "genre", checked: genre === best, onchange: choose });
  const figure = element("span", { className: "percent" }, percentFormat.format(genre.probability));
  return element("label", { className: "genre" }, radio, element("span", {}, genre.name), makeBar(genre.probability), figure);
};

const ask = async () => {
  const synopsis = byId("synopsis").value;
  if (!synopsis.trim()) throw new ServiceError("The text is empty: paste a synopsis first.");
  const [answer] = Object.values(JSON.parse(await request("genres/predict?explain=true", toCsv(synopsis))));
  const genres = Object.entries(answer).map(readGenre).sort((a, b) => b.probability - a.probability);
  const logits = genres.flatMap(({ terms }) => [...terms.values()]);
  const strongest = logits.reduce((most, logit) => Math.max(most, Math.abs(logit)), 0);
  byId("ranking").replaceChildren(
    ...genres.map((genre) => genreChoice(genre, genres[0], () => explain(synopsis, genre, strongest))),
  );
  explain(synopsis, genres[0], strongest);
  byId("answer").hidden = false;
  return `Most probable: ${genres[0].name}, ${percentFormat.format(genres[0].probability)}.`;
};

// --- Files of films

let films = []; // each its id and genres, in the order of the file
let rankedFile; // the file of films that was chosen last

/** Return a list of cells for each film of an answer, in its order. JSON.parse would put whole numbers first. */
const readFilms = (answer) => {
  const found = [];
  for (const [, name, value] of answer.matchAll(/("(?:[^"\\]|\\.)*"):(\{|"(?:[^"\\]|\\.)*"|[^,}]+)/g)) {
    if (value === "{") found.push([JSON.parse(name)]);
    else if (value.startsWith('"')) found.at(-1).push(JSON.parse(value)); // a rank and its genre
    else found.at(-1).push(`${JSON.parse(name)} ${percentFormat.format(value)}`); // a genre and its probability
  }
  return found;
};

const showFilms = () => {
  const wanted = byId("filter").value.trim().toLowerCase();
  const found = films.filter((cells) => cells.some((cell) => cell.toLowerCase().includes(wanted)));
  const shown = found.slice(0, MOST_ROWS);
  byId("rows").replaceChildren(...shown.map((cells) => row(...cells)));
  const rest = found.length > shown.length ? `; the first ${numberFormat.format(shown.length)} are shown` : "";
  byId("count").textContent = `${numberFormat.format(found.length)} of ${count(films.length, "film")}${rest}.`;
};

const genreRow = ([name, figures]) => {
  const score = figures.map_at_5;
  const measure = element("span", { className: "measure" }, makeBar(score), scoreFormat.format(score));
  return row(name, measure, numberFormat.format(figures.films));
};

const SCORES = {
  "MAP@5": "How early the right genres come among the first five, 1 at best (mean average precision).",
  "P@1": "How often the first genre is right.",
  "R@5": "How many of the right genres are among the first five.",
};

/** Fill the table of figures in an element. */
const showFigures = (place, scores) => {
  const figures = Object.entries(SCORES).map(([name, meaning]) => row(name, scoreFormat.format(scores[name]), meaning));
  place.querySelector(".figures tbody").replaceChildren(...figures);
};

/** Show the scores of the model on a file, or say why there are none. */
const showScores = async (file) => {
  byId("scores").hidden = true;
  byId("unscored").textContent = "";
  try {
    const scores = JSON.parse(await request("genres/evaluate", file));
    byId("scored").textContent = count(scores.films, "film");
    showFigures(byId("scores"), scores);
    byId("genres").replaceChildren(...Object.entries(scores.genres).map(genreRow));
    byId("scores").hidden = false;
  } catch (error) {
    if (error.status !== 422) throw error;
    byId("unscored").textContent = `No scores: ${error.message}`;
  }
};

const rank = async (file) => {
  rankedFile = file; // before anything is awaited: a training may end meanwhile
  const wantsProbabilities = byId("probabilities").checked;
  const answer = await request(`genres/predict?probabilities=${wantsProbabilities}`, file);
  await showScores(file);
  films = readFilms(answer);
  const save = byId("save");
  URL.revokeObjectURL(save.href);
  save.href = URL.createObjectURL(new Blob([answer], { type: "application/json" }));
  save.download = wantsProbabilities ? "probabilities.json" : "submission.json";
  save.textContent = `Save ${save.download}`;
  byId("filter").value = "";
  showFilms();
  byId("films").hidden = false;
  return `Ranked the genres of ${count(films.length, "film")}.`;
};

/** Rank the file that was chosen last again, if there is one. */
const rankAgain = () => {
  if (rankedFile) attend(byId("rank"), `Ranking the films of ${rankedFile.name} …`, () => rank(rankedFile));
};

// --- Training

let trainingFile; // the file to learn from that was chosen last

const learn = async (file) => {
  trainingFile = file;
  const settings = new URLSearchParams({ held_out: true });
  const columns = byId("columns").value.trim();
  if (columns) settings.set("columns", columns); // else the service has its own
  let answer;
  try {
    answer = JSON.parse(await request(`genres/train?${settings}`, file));
  } catch (error) {
    if (error.status !== 401) throw error;
    byId("authorization").hidden = false;
    throw new ServiceError("This service needs its token for a training: type it above.", error.status);
  }
  byId("authorization").hidden = true;
  const worth = byId("worth");
  worth.hidden = !("MAP@5" in answer); // films that all have the same text can't be held out
  if (!worth.hidden) showFigures(worth, answer);
  rankAgain();
  const leftOut = answer.left_out ? `; left out ${count(answer.left_out, "film")} without genres` : "";
  return `Learnt ${count(answer.genres.length, "genre")} from ${count(answer.films, "film")}${leftOut}.`;
};

// --- What people do

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  attend(event.target, "Asking …", ask);
});

byId("learn").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!byId("authorization").hidden) sessionStorage.setItem("token", byId("token").value.trim());
  byId("token").value = "";
  if (trainingFile) attend(event.target, `Learning from ${trainingFile.name} …`, () => learn(trainingFile));
  else say(event.target, "", "Choose a file to learn from.");
});

const receive = (form, doing, task) => {
  const zone = form.querySelector(".drop");
  const input = zone.control;
  const take = (file) => attend(form, `${doing} ${file.name} …`, () => task(file));
  input.addEventListener("change", () => {
    take(input.files[0]);
    input.value = ""; // so that the same file may be chosen again
  });
  zone.addEventListener("dragover", ({ dataTransfer }) => {
    if (input.matches(":disabled")) dataTransfer.dropEffect = "none";
    else zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", ({ dataTransfer }) => {
    zone.classList.remove("over");
    if (dataTransfer.files.length && !input.matches(":disabled")) take(dataTransfer.files[0]);
  });
};

receive(byId("rank"), "Ranking the films of", rank);
receive(byId("learn"), "Learning from", learn);

// A browser would leave the page for a file that is dropped on it; text may still be dropped into the synopsis
for (const type of ["dragover", "drop"]) {
  document.addEventListener(type, (event) => {
    if (event.dataTransfer.types.includes("Files")) event.preventDefault();
  });
}

byId("probabilities").addEventListener("change", rankAgain);
byId("filter").addEventListener("input", showFilms);
showModel();
