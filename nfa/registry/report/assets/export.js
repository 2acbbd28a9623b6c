"use strict";
// Tables as CSV, as LaTeX, and to the clipboard. A table is { name, head, rows }, with numbers or texts as cells.

const LATEX = {
  "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_",
  "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}",
  "±": "$\\pm$", "×": "$\\times$", "−": "$-$", "≤": "$\\le$", "≥": "$\\ge$", "→": "$\\to$", "·": "$\\cdot$", "∞": "$\\infty$",
  "–": "--", "—": "---", "…": "\\ldots{}", "α": "$\\alpha$", "β": "$\\beta$", "γ": "$\\gamma$", "δ": "$\\delta$",
  "ε": "$\\varepsilon$", "η": "$\\eta$", "λ": "$\\lambda$", "μ": "$\\mu$", "ρ": "$\\rho$", "σ": "$\\sigma$", "τ": "$\\tau$",
  "Σ": "$\\Sigma$", "°": "$^\\circ$", "µ": "$\\mu$", "≈": "$\\approx$", "√": "$\\surd$", "’": "'", "‘": "`", "“": "``", "”": "''", "Δ": "$\\Delta$", "‖": "$\\|$", "²": "$^2$", "³": "$^3$", "ᵀ": "$^\\top$",
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

// A number with an exponent that has a sign, which no id has.
const WITH_EXPONENT = /(?<![\w.])([−-]?)(\d+(?:\.\d+)?)e([+−-])0*(\d+)(?![\w.])/g;
// Accents that pdfLaTeX knows how to set, and letters that it has.
const ACCENTED = /^[A-Za-z][\u0300-\u0304\u0306-\u0308\u030a-\u030c\u0327]$/;
const SET_BY_LATEX = /^[\x20-\x7eßæœøåÆŒØÅłŁ]$/;

/** A letter as LaTeX; one that pdfLaTeX cannot set is written as its code. */
function latexLetter(letter) {
  if (LATEX[letter] !== undefined) return LATEX[letter];
  if (SET_BY_LATEX.test(letter) || (letter <= "\u017f" && ACCENTED.test(letter.normalize("NFD")))) return letter;
  return `[U+${letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`;
}

/** A cell as LaTeX, with what LaTeX would take for a command escaped, and exponents as powers of ten. */
function latexCell(cell) {
  const text = (typeof cell === "number" ? written(cell) : String(cell)).normalize("NFC").replace(/\s+/g, " ");
  const plain = (part) => [...part].map(latexLetter).join("");
  const parts = text.split(WITH_EXPONENT); // the text before a number, its sign, digits, sign of the exponent, exponent
  return d3.range(0, parts.length, 5).map((at) => plain(parts[at]) + powerOfTen(parts.slice(at + 1, at + 5))).join("");
}

function powerOfTen([sign, digits, exponentSign, exponent]) {
  if (digits === undefined) return "";
  return `$${sign && "-"}${digits}\\times10^{${exponentSign === "+" ? "" : "-"}${exponent}}$`;
}

/** A row; what it begins with must not be taken for an option of the command before it. */
function latexRow(row) {
  const text = row.map(latexCell).join(" & ");
  return `${/^[[*]/.test(text) ? "{}" : ""}${text} \\\\`;
}

/** A table of booktabs; what it says of sources stands above it as comments. */
function latexOf(table) {
  const kinds = table.head.map((_, column) => (table.rows.every((row) => typeof row[column] !== "string") ? "r" : "l"));
  const rows = [table.head, ...table.rows].map(latexRow);
  const coded = rows.some((row) => row.includes("[U+")) ? ["Letters that pdfLaTeX cannot set stand as their codes: [U+…]."] : [];
  const comments = [table.name, "It needs \\usepackage{booktabs}.", ...coded, ...(table.comments ?? [])];
  return [
    ...comments.map((line) => `% ${line.replace(/\s+/g, " ")}`),
    `\\begin{tabular}{${kinds.join("")}}`, "\\toprule",
    rows[0], "\\midrule", ...rows.slice(1), "\\bottomrule", "\\end{tabular}", "",
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
