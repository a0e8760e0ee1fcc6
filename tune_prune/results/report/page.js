// Copies commands and filters the table of trials.
"use strict";

async function copyText(from, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(from.textContent);
    button.textContent = "Copied";
  } catch {
    // a page opened from a file may not write to the clipboard: select the text for the keyboard instead
    window.getSelection().selectAllChildren(from);
    button.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => (button.textContent = label), 2000);
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", () => copyText(button.parentElement.querySelector("pre"), button));
}

for (const box of document.querySelectorAll(".filter")) {
  const input = box.querySelector("input");
  const shown = box.querySelector("output");
  const rows = [...document.getElementById(box.dataset.table).tBodies[0].rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  // a row is shown that has every word
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row, i) => (row.hidden = !words.every((word) => texts[i].includes(word))));
    shown.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  input.addEventListener("input", filter);
  box.hidden = false;
  filter();
}
