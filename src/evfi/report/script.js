"use strict";
/* Sort a table by the column whose title is clicked; every group of rows by itself. */
const keyOf = (row, column) => {
  const cell = row.cells[column];
  if (!cell) return [1, "", 0];
  const value = cell.dataset.value;
  return value === undefined ? [1, cell.textContent.trim(), 0] : [0, "", Number(value)];
};
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((title, column) => {
    title.tabIndex = 0;
    const sort = () => {
      const descending = title.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      title.setAttribute("aria-sort", descending ? "descending" : "ascending");
      for (const body of table.tBodies) {
        const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
        rows.sort((one, other) => {
          const [a, b] = [keyOf(one, column), keyOf(other, column)];
          const order = a[0] - b[0] || a[1].localeCompare(b[1]) || a[2] - b[2];
          return descending ? -order : order;
        });
        body.append(...rows);
      }
    };
    title.addEventListener("click", sort);
    title.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
}
/* Show a picture large. */
const box = document.createElement("dialog");
box.className = "large";
box.addEventListener("click", () => box.close());
document.body.append(box);
for (const picture of document.querySelectorAll(".pictures img")) {
  picture.addEventListener("click", () => {
    box.replaceChildren(picture.cloneNode());
    box.showModal();
  });
}
