"use strict";
/* Sorts the table by a column. The page is complete without it. */
(() => {
  const table = document.getElementById("records");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = [...table.querySelectorAll("th[data-column]")];
  const compare = (a, b, numeric) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return numeric ? Number(a) - Number(b) : a.localeCompare(b);
  };
  const sort = (head) => {
    const column = heads.indexOf(head);
    const falling = head.getAttribute("aria-sort") === "ascending";
    const key = (row) => row.cells[column].dataset.value ?? "";
    const numeric = "numeric" in head.dataset;
    const rows = [...body.rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      const order = compare(a, b, numeric);
      return falling && a !== "" && b !== "" ? -order : order;
    });
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    body.append(...rows.map(([, row]) => row));
  };
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(head));
    head.append(button);
  }
})();
