"use strict";
(() => {
  const all = (query, within = document) => [...within.querySelectorAll(query)];

  // What a mark shows, by hovering and by focus alike; Escape hides it.
  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  const show = (target) => {
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const at = target.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left + at.width / 2 - own.width / 2), innerWidth - own.width - 8);
    const above = at.top - own.height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above >= 8 ? above : Math.min(at.bottom + 8, innerHeight - own.height - 8)}px`;
  };
  for (const kind of ["pointerover", "focusin"]) {
    document.addEventListener(kind, (event) => {
      const target = event.target.closest?.("[data-tip]");
      if (target) show(target); else hide();
    });
  }
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { passive: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // One stop of the Tab key for each chart, matrix and gallery; the arrow keys move inside.
  const items = (group) => all("button, [tabindex]", group).filter((one) => one.getClientRects().length);
  for (const group of all("[data-roving]")) {
    all("button, [tabindex]", group).forEach((one, place) => { one.tabIndex = place ? -1 : 0; });
    group.addEventListener("focusin", (event) => {
      for (const one of all("[tabindex='0']", group)) one.tabIndex = -1;
      event.target.tabIndex = 0;
    });
    group.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = nearest(event.target, items(group), step);
      if (next) next.focus();
    });
  }
  // The nearest item in a direction, by the middles of both; what lies aside counts twice.
  function nearest(from, among, [right, down]) {
    const middle = (one) => { const at = one.getBoundingClientRect(); return [at.left + at.width / 2, at.top + at.height / 2]; };
    const [x, y] = middle(from);
    let best = null, least = Infinity;
    for (const one of among) {
      const [a, b] = middle(one), ahead = right * (a - x) + down * (b - y);
      const aside = Math.abs(right ? b - y : a - x), cost = ahead + 2 * aside;
      if (one !== from && ahead > 1 && cost < least) [best, least] = [one, cost];
    }
    return best;
  }

  // Galleries show their first pictures, or those that a pair of classes chose.
  const lists = all(".cards").map((list) => ({
    list, cards: all(":scope > li", list), first: Number(list.dataset.first), open: false,
    status: document.getElementById(list.id.replace("cards", "status")),
    more: document.querySelector(`[data-more="${list.id}"]`),
    reset: document.querySelector(`[data-reset="${list.id}"]`),
  }));
  let chosen = null;

  const isRight = (pair) => pair.dataset.true === pair.dataset.taken;
  const same = (one, other) => one.dataset.true === other.dataset.true && one.dataset.taken === other.dataset.taken;
  // Wrong answers are in the first gallery, right ones in the second: the other one stays as it is.
  const filters = (one) => chosen && one.list.id === (isRight(chosen) ? "unsure-cards" : "wrong-cards");

  function draw() {
    for (const one of lists) {
      const filtered = filters(one);
      one.cards.forEach((card, place) => {
        card.hidden = filtered ? !same(card, chosen) : !one.open && place >= one.first;
      });
      const shown = one.cards.filter((card) => !card.hidden);
      for (const card of one.cards) card.tabIndex = card === shown[0] ? 0 : -1;
      const what = filtered ? `on this page: ${chosen.getAttribute("aria-label")}` : one.status.dataset.of;
      one.status.textContent = `${shown.length} ${what}`;
      one.more.hidden = Boolean(filtered) || one.cards.length <= one.first;
      one.more.textContent = one.open ? "Show fewer" : `Show all ${one.cards.length}`;
      one.reset.hidden = !filtered;
    }
    for (const pair of all(".pair")) pair.setAttribute("aria-pressed", String(Boolean(chosen && same(pair, chosen))));
  }
  for (const one of lists) one.more.addEventListener("click", () => { one.open = !one.open; draw(); });
  for (const one of lists) {
    one.reset.addEventListener("click", () => {
      chosen = null;
      draw();
      one.status.focus();
    });
  }
  for (const pair of all(".pair")) {
    pair.addEventListener("click", () => {
      chosen = pair;
      draw();
      hide();
      const where = lists.find(filters);
      if (!where) return;
      where.status.focus({ preventScroll: true });
      where.status.scrollIntoView({ block: "start" });
    });
  }
  draw();
})();
