// The console's own script: the live list, the slider of the playground, the keys of the review. Pages work without it.
"use strict";

const MAX_LISTED = 50;
let stream = null;

// Times come in UTC; the reader sees them in the zone of the browser, and UTC when pointing at one.
function localiseTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    time.title = `${time.textContent} UTC`;
    time.textContent = moment.toLocaleString("sv-SE");
  }
}

function addAnswer(list, html) {
  const holder = document.createElement("template");
  holder.innerHTML = html; // rendered and escaped by the server
  const answer = holder.content.querySelector("article");
  if (!answer || document.getElementById(answer.id)) return false;
  const at = Number(answer.dataset.at);
  const next = [...list.children].find((other) => Number(other.dataset.at) <= at);
  if (!next && list.children.length >= MAX_LISTED) return false;
  list.insertBefore(answer, next || null);
  localiseTimes(answer);
  while (list.children.length > MAX_LISTED) list.lastElementChild.remove();
  return true;
}

function reloadList() {
  htmx.ajax("GET", window.location.pathname + window.location.search, {
    target: "#answers", select: "#answers", swap: "outerHTML",
  });
}

function follow() {
  if (stream) stream.close();
  stream = null;
  const section = document.getElementById("answers");
  if (!section || !section.dataset.events) return; // a page of older answers stays as it is
  const list = document.getElementById("list");
  const state = document.getElementById("following");
  let fresh = 0;
  let wasLost = false;
  stream = new EventSource(section.dataset.events);
  stream.addEventListener("open", () => {
    section.dataset.state = "following";
    if (wasLost) reloadList();
  });
  stream.addEventListener("answer", (event) => {
    if (!addAnswer(list, event.data)) return;
    fresh += 1;
    state.textContent = `Following: ${fresh} new.`;
  });
  stream.addEventListener("missed", reloadList);
  stream.addEventListener("over", () => {
    stream.close();
    window.location.assign("/login");
  });
  stream.addEventListener("error", () => {
    wasLost = true;
    section.dataset.state = "lost";
    state.textContent = "The connection was lost; trying again.";
  });
}

function showCaution() {
  const slider = document.querySelector("#caution[type=range]"); // the page of promotion has a field of this name, too
  if (!slider) return;
  const caution = Number(slider.value);
  const segments = [...document.querySelectorAll(".segment[data-score]")];
  let flagged = 0;
  for (const segment of segments) {
    const isFlagged = Number(segment.dataset.score) > caution;
    segment.classList.toggle("flagged", isFlagged);
    flagged += isFlagged ? 1 : 0;
  }
  document.getElementById("caution-value").textContent = (caution < 0 ? "" : "+") + caution.toFixed(2);
  document.getElementById("flagged-count").textContent = `${flagged} of ${segments.length} segments flagged.`;
}

// The keys of the review. A letter typed into a field is text.
function reviewKey(event) {
  const closer = document.getElementById("closer");
  const typing = event.target.matches("textarea, select, input:not([type=radio])");
  if (event.key === "Escape") return event.target.blur();
  if (event.key === "Enter" && event.ctrlKey && event.target.id === "edit") return document.getElementById("edited").click();
  if (typing || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const button = document.querySelector(`button[data-key="${CSS.escape(event.key)}"]`);
  const help = document.getElementById("keys");
  if (button) button.click();
  else if (event.key === "?") help.open = !help.open;
  else if (closer && event.key === "m") {
    if (document.activeElement.name === "segment") document.getElementById("missed").click();
    else (closer.querySelector("[name=segment][value='0']") || closer.querySelector("[name=segment]")).focus();
    const marked = document.activeElement;
    if (marked.name === "segment") marked.checked = true;
  } else if (closer && event.key === "e") document.getElementById("edit").focus();
  else return;
  event.preventDefault();
}

// The keys of lists: j and k move from answer to answer, and / goes to the search from any page.
function listKey(event) {
  if (event.target.matches("textarea, select, input") || event.ctrlKey || event.altKey || event.metaKey) return;
  const links = [...document.querySelectorAll("#list article h2 a")];
  const step = { j: 1, k: -1 }[event.key];
  if (step && links.length) {
    const current = links.indexOf(document.activeElement);
    const next = current < 0 ? (step > 0 ? 0 : links.length - 1) : current + step;
    links[Math.min(Math.max(next, 0), links.length - 1)].focus();
  } else if (event.key === "/" && document.querySelector("a[href='/search']")) {
    const field = document.getElementById("search_text");
    if (field) field.focus();
    else window.location.assign("/search");
  } else return;
  event.preventDefault();
}

// What was searched for is marked in the answers that were found; the texts themselves stay as they are.
function markSearched() {
  const list = document.querySelector("#list[data-search]");
  if (!list || !list.dataset.search || !window.CSS || !CSS.highlights) return;
  const words = list.dataset.search.toLowerCase();
  const ranges = [];
  const walker = document.createTreeWalker(list, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.toLowerCase();
    for (let at = text.indexOf(words); at >= 0 && ranges.length < 1000; at = text.indexOf(words, at + words.length)) {
      const range = document.createRange();
      range.setStart(walker.currentNode, at);
      range.setEnd(walker.currentNode, Math.min(at + words.length, walker.currentNode.length));
      ranges.push(range);
    }
  }
  CSS.highlights.set("searched", new Highlight(...ranges));
}

// An answer opened from a list links to its neighbours there. The tab keeps their addresses, which hold no text, so this also
// works for a search, whose words are in no address.
const LISTED = "listed-answers";

function keepList(event) {
  const link = event.target.closest?.("#list article h2 a");
  if (!link) return;
  const links = [...document.querySelectorAll("#list article h2 a")];
  const list = { title: document.querySelector("h1").textContent, answers: links.map((one) => one.getAttribute("href")) };
  sessionStorage.setItem(LISTED, JSON.stringify(list));
}

function showNeighbours() {
  const neighbours = document.getElementById("neighbours");
  const list = JSON.parse(sessionStorage.getItem(LISTED) || "null");
  const index = neighbours && list ? list.answers.indexOf(window.location.pathname) : -1;
  if (index < 0) return;
  for (const [id, address] of [["previous", list.answers[index - 1]], ["next", list.answers[index + 1]]]) {
    const link = document.getElementById(id);
    if (address) link.href = address;
    else link.remove();
  }
  neighbours.querySelector("span").textContent = `${index + 1} of ${list.answers.length} in ${list.title}`;
  neighbours.hidden = false;
}

function neighbourKey(event) {
  const link = document.getElementById({ j: "next", k: "previous" }[event.key]);
  if (link?.href && !event.ctrlKey && !event.altKey && !event.metaKey) link.click();
  else listKey(event);
}

const keys = document.getElementById("keys") ? reviewKey : document.getElementById("neighbours") ? neighbourKey : listKey;
document.addEventListener("keydown", keys);
document.addEventListener("click", keepList);
document.addEventListener("input", (event) => {
  if (event.target.id === "caution") showCaution();
});
document.addEventListener("htmx:afterSettle", (event) => {
  localiseTimes(document);
  if (event.target.id === "answers" || event.detail.target?.id === "answers") follow();
  showCaution();
});
localiseTimes(document);
follow();
showCaution();
markSearched();
showNeighbours();
