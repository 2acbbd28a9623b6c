"use strict";
// Tables as CSV, as LaTeX, and to the clipboard. A table is { name, head, rows }, with numbers or texts as cells.

const LATEX = {
  "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_",
  "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}",
  "±": "$\\pm$", "×": "$\\times$", "−": "$-$", "≤": "$\\le$", "≥": "$\\ge$", "→": "$\\to$", "·": "$\\cdot$", "∞": "$\\infty$",
  "–": "--", "—": "---", "…": "\\ldots{}", "α": "$\\alpha$", "β": "$\\beta$", "γ": "$\\gamma$", "δ": "$\\delta$",
  "ε": "$\\varepsilon$", "η": "$\\eta$", "λ": "$\\lambda$", "μ": "$\\mu$", "ρ": "$\\rho$", "σ": "$\\sigma$", "τ": "$\\tau$",
  "Σ": "$\\Sigma$", "Δ": "$\\Delta$", "‖": "$\\|$", "²": "$^2$", "³": "$^3$", "ᵀ": "$^\\top$",
};

/** A cell as CSV. A text that a spreadsheet would take for a formula gets an apostrophe. */
function csvCell(cell) {
  if (typeof cell === "number") return exact(cell);
  const text = /^[=+\-@\t\r]/.test(cell) && Number.isNaN(Number(cell)) ? `'${cell}` : String(cell);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csvOf(table) {
  return [table.head, ...table.rows].map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

/** A cell as LaTeX, with what LaTeX would take for a command escaped. */
function latexCell(cell) {
  const text = typeof cell === "number" ? written(cell) : String(cell);
  return [...text.replace(/\s+/g, " ")].map((letter) => LATEX[letter] ?? letter).join("");
}

/** A table of booktabs; what it says of sources stands above it as comments. */
function latexOf(table) {
  const kinds = table.head.map((_, column) => (table.rows.every((row) => typeof row[column] !== "string") ? "r" : "l"));
  const comments = [table.name, "It needs \\usepackage{booktabs}.", ...(table.comments ?? [])];
  const rows = table.rows.map((row) => `${row.map(latexCell).join(" & ")} \\\\`);
  return [
    ...comments.map((line) => `% ${line.replace(/\s+/g, " ")}`),
    `\\begin{tabular}{${kinds.join("")}}`, "\\toprule",
    `${table.head.map(latexCell).join(" & ")} \\\\`, "\\midrule", ...rows, "\\bottomrule", "\\end{tabular}", "",
  ].join("\n");
}

function fileName(name, ending) {
  const plain = name.toLowerCase().replace(/[^a-z0-9]+/g, "_").replace(/^_+|_+$/g, "").slice(0, 60);
  return `${plain || "table"}.${ending}`;
}

function download(text, name, type) {
  const address = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
  say(`Saved as ${name}.`);
}

/** To the clipboard; where the browser does not let us, through a text that is selected. */
async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { "aria-hidden": "true", style: "position:fixed;opacity:0" });
    const before = document.activeElement;
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    before?.focus();
  }
  say(`Copied: ${what}.`);
}

/** Three buttons that give a table away; it is made when one is pressed: make("csv") or make("latex"). */
function exports(name, make) {
  return el(
    "span", { class: "exports", role: "group", "aria-label": `Export: ${name}` },
    button("CSV", () => download(csvOf(make("csv")), fileName(name, "csv"), "text/csv"), { "aria-label": `Save as CSV: ${name}` }),
    button("LaTeX", () => download(latexOf(make("latex")), fileName(name, "tex"), "text/x-tex"), { "aria-label": `Save as LaTeX: ${name}` }),
    button("Copy", () => copy(csvOf(make("csv")), `${name}, as CSV`), { "aria-label": `Copy as CSV: ${name}` }),
  );
}

/** The cells of a table of the template. */
function tableOnPage(element) {
  const rows = [...element.rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
  return { name: element.dataset.export, head: rows[0], rows: rows.slice(1) };
}
