// The console's own script: the live list, the slider of the playground, the keys of the review. Pages work without it.
"use strict";

const MOST_LISTED = 50;
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
  if (!next && list.children.length >= MOST_LISTED) return false;
  list.insertBefore(answer, next || null);
  localiseTimes(answer);
  while (list.children.length > MOST_LISTED) list.lastElementChild.remove();
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
  if (!section) return;
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

if (document.getElementById("keys")) document.addEventListener("keydown", reviewKey);
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
