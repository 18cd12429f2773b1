// Shows the claims that all filters let through; the address keeps the choice, so that it can be passed on.
const form = document.querySelector("form.filters");
const claims = [...document.querySelectorAll("article")];

function choose() {
  const wanted = Object.fromEntries(new FormData(form));
  const words = wanted.search.toLowerCase().split(/\s+/);
  let shown = 0;
  for (const claim of claims) {
    const fits = ["verdict", "kind", "notebook"].every((field) => !wanted[field] || claim.dataset[field] === wanted[field]);
    const text = claim.textContent.toLowerCase();
    claim.hidden = !(fits && words.every((word) => text.includes(word)));
    shown += !claim.hidden;
  }
  form.querySelector("output").value = `${shown} of ${claims.length} claims`;
  const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value)).toString();
  history.replaceState(null, "", (query ? `?${query}` : location.pathname) + location.hash);
}

for (const [field, value] of new URLSearchParams(location.search)) {
  if (form.elements[field]) form.elements[field].value = value;
}
form.addEventListener("input", choose);
form.addEventListener("submit", (event) => event.preventDefault());
choose();
