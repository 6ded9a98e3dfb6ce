"use strict";
document.querySelectorAll("table.sortable").forEach((table) => {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const isNumber = head.classList.contains("n");
    const current = head.getAttribute("aria-sort");
    const order = current === "none" ? (isNumber ? "descending" : "ascending") : current === "ascending" ? "descending" : "ascending";
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => row.cells[column].dataset.key;
    const rows = [...body.rows].sort((a, b) => {
      const [p, q] = [key(a), key(b)];
      if (isNumber && (p === "" || q === "")) return (p === "") - (q === "");  // what has no value stays last
      return sign * (isNumber ? p - q : p.localeCompare(q, undefined, { numeric: true }));
    });
    heads.forEach((other) => other.setAttribute("aria-sort", other === head ? order : "none"));
    body.append(...rows);
  }));
});
