// Loads the page again when the server has a newer one, and keeps what its reader has filtered and unfolded.
"use strict";
(() => {
  const note = document.body.insertBefore(document.createElement("p"), document.body.firstChild);
  note.className = "note";
  note.textContent = "Live: this page changes when there is something new.";

  const kept = JSON.parse(sessionStorage.getItem("kept") ?? "{}");
  const input = document.querySelector(".filter input");
  if (input && kept.filter) {
    input.value = kept.filter;
    input.dispatchEvent(new Event("input"));
  }
  const folded = [...document.querySelectorAll("details")];
  for (const one of folded) one.open = (kept.open ?? []).includes(one.firstElementChild.textContent);
  if (kept.scroll) window.scrollTo(0, kept.scroll);

  async function look() {
    try {
      const answer = await fetch("version");
      if (!answer.ok || (await answer.text()) === VERSION) return;
    } catch {
      note.textContent = "The server has ended: this page no longer changes.";
      return;
    }
    const open = folded.filter((one) => one.open).map((one) => one.firstElementChild.textContent);
    sessionStorage.setItem("kept", JSON.stringify({ filter: input?.value, open, scroll: window.scrollY }));
    location.reload();
  }
  setInterval(look, 2000);
})();
