"use strict";
// Gives each block that is there to be copied its button. Without this all can be read, and copied by hand.
const said = document.getElementById("said");
for (const block of document.querySelectorAll("pre.copy")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy " + block.dataset.what);
  button.addEventListener("click", async () => {
    let done = false;
    try {
      await navigator.clipboard.writeText(block.textContent);
      done = true;
    } catch {
      // Where the page did not come by TLS there is no clipboard: what is selected can be copied by the older way.
      const range = document.createRange();
      range.selectNodeContents(block);
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      done = document.execCommand("copy");
    }
    said.textContent = done ? "Copied " + block.dataset.what : "Selected; press Ctrl+C to copy";
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  const around = document.createElement("div");
  around.className = "copied";
  block.replaceWith(around);
  around.append(button, block);
}
