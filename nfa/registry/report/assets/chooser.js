"use strict";
// A list of names to choose from, with a filter.

const LISTED = 300; // names at once; a filter finds the others

/**
 * A folded list of checkboxes. `names` is a list of [id, text], `chosen` one of ids; `most` may be chosen at once, and
 * `changed` gets the new list, in the order of `names`.
 */
function chooser({ title, names, chosen, most, changed }) {
  const picked = new Set(chosen);
  const box = el("div", { class: "choices", role: "group", "aria-label": title });
  const filter = el("input", { type: "search", placeholder: "filter", "aria-label": `Filter: ${title}`, input: () => list() });
  const count = el("span", { class: "note", role: "status" });
  const found = () => names.filter(([, text]) => text.toLowerCase().includes(filter.value.trim().toLowerCase()));

  function take(ids) {
    picked.clear();
    ids.forEach((id) => picked.add(id));
    list();
    told();
  }
  function told() {
    changed(names.map(([id]) => id).filter((id) => picked.has(id)));
  }
  function toggle(id, input) {
    if (input.checked && picked.size >= most) {
      input.checked = false;
      say(`No more than ${most} at once: untick one first.`);
      return;
    }
    if (input.checked) picked.add(id);
    else picked.delete(id);
    count.textContent = `${picked.size} of ${names.length} chosen`;
    told();
  }
  function choice([id, text]) {
    const input = el("input", { type: "checkbox", change: (event) => toggle(id, event.target) });
    input.checked = picked.has(id);
    return el("label", {}, input, text);
  }
  function list() {
    const all = found();
    box.replaceChildren(...all.slice(0, LISTED).map(choice));
    if (all.length > LISTED) box.append(el("p", { class: "note" }, `${all.length - LISTED} more; filter to find them.`));
    count.textContent = `${picked.size} of ${names.length} chosen`;
  }

  list();
  const ids = () => found().map(([id]) => id);
  const several = Math.min(most, names.length);
  return el(
    "details", { class: "no-print" }, el("summary", {}, title),
    el("div", { class: "chooser" },
      el("div", { class: "bar" }, filter,
        button(`First ${several} that match`, () => take(ids().slice(0, most))),
        button(`${several} evenly spaced`, () => take(evenly(ids().length, most).map((place) => ids()[place]))),
        button("None", () => take([])), count),
      box),
  );
}
