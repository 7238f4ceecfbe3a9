// What pages can do with script; all of them work without it.
//
// - <main data-refresh="5"> or any element with it: every 5 seconds the same page is fetched, and each element with
//   `data-live` and an id is made like the new one. What is alike stays the very same node, so scroll, focus, open
//   details and ticks stay. Give rows `data-key`, so that they are known again. Inside `data-keep` nothing is touched.
// - <button data-confirm="Really?">: asked before the form is sent. While a POST is under way its buttons are disabled.
// - <input type="checkbox" data-all="run_id">: ticks all boxes of that name. data-count="run_id" shows how many are.
// - <button data-copy="text">: puts the text on the clipboard.
"use strict";
(() => {
  const keyOf = (node) => (node.nodeType === 1 && (node.dataset.key || node.id)) || null;

  function morph(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || keyOf(old) !== keyOf(fresh)) {
      old.replaceWith(fresh);
      return;
    }
    if (old.nodeType !== 1) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    if (old.hasAttribute("data-keep")) return;
    const own = (name) => name === { DETAILS: "open", PRE: "tabindex" }[old.nodeName];
    for (const { name, value } of [...fresh.attributes]) {
      if (!own(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      if (!own(name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    if (old.nodeName === "TEXTAREA") return; // what somebody is writing
    const known = new Map();
    for (const child of old.childNodes) if (keyOf(child)) known.set(keyOf(child), child);
    let next = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const key = keyOf(child);
      let match = null;
      if (key) match = known.get(key) || null;
      else if (next && !keyOf(next) && next.nodeName === child.nodeName) match = next;
      if (match === null) {
        old.insertBefore(child, next);
        continue;
      }
      if (match === next) next = next.nextSibling;
      else old.insertBefore(match, next);
      morph(match, child);
    }
    while (next) {
      const gone = next;
      next = next.nextSibling;
      gone.remove();
    }
  }

  // --- live refresh -------------------------------------------------------------------------------------

  const beat = document.querySelector("[data-refresh]");
  const state = document.getElementById("live-state");
  const toggle = document.querySelector("[data-live-toggle]");
  let failures = 0;
  let timer = 0;

  function say(text) {
    if (state.textContent !== text) state.textContent = text;
    state.hidden = !text;
  }

  const isOn = () => beat && !document.hidden && (!toggle || toggle.checked);

  function later() {
    clearTimeout(timer);
    const seconds = Math.max(1, Number(beat.dataset.refresh) || 5) * Math.min(2 ** failures, 12);
    if (isOn()) timer = setTimeout(refresh, seconds * 1000);
  }

  async function refresh() {
    const address = location.href.split("#")[0];
    try {
      const answer = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store" });
      if (answer.redirected && new URL(answer.url).pathname.endsWith("/ui/login")) {
        location.reload(); // the session has ended
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (address !== location.href.split("#")[0] || !isOn()) return;
      for (const old of document.querySelectorAll("[data-live][id]")) {
        const found = fresh.getElementById(old.id);
        if (found) morph(old, document.adoptNode(found));
      }
      failures = 0;
      say("");
      document.dispatchEvent(new Event("refreshed"));
      count();
    } catch (error) {
      failures += 1;
      say("Not up to date: the service does not answer. Trying again.");
    } finally {
      later();
    }
  }

  if (beat) {
    const again = () => (isOn() ? refresh() : clearTimeout(timer));
    document.addEventListener("visibilitychange", again);
    if (toggle) {
      toggle.closest("[hidden]")?.removeAttribute("hidden");
      try {
        toggle.checked = localStorage.getItem("tinyworkflow.live") !== "off";
      } catch (error) { /* no storage: it is on */ }
      toggle.addEventListener("change", () => {
        try {
          localStorage.setItem("tinyworkflow.live", toggle.checked ? "on" : "off");
        } catch (error) { /* no storage */ }
        again();
      });
    }
    later();
  }

  // --- small things -------------------------------------------------------------------------------------

  const boxes = (name) => [...document.querySelectorAll('input[type="checkbox"]')].filter((one) => one.name === name);

  function count() {
    for (const shown of document.querySelectorAll("[data-count]")) {
      const ticked = boxes(shown.dataset.count).filter((one) => one.checked).length;
      shown.textContent = ticked ? `${ticked} chosen` : shown.dataset.none || "";
    }
    for (const all of document.querySelectorAll("[data-all]")) {
      const some = boxes(all.dataset.all);
      const ticked = some.filter((one) => one.checked).length;
      all.checked = some.length > 0 && ticked === some.length;
      all.indeterminate = ticked > 0 && ticked < some.length;
    }
  }

  for (const shown of document.querySelectorAll("[data-scripted]")) shown.hidden = false;
  count();

  // What scrolls can be reached by the keyboard; not every browser sees to that itself.
  function reach() {
    for (const one of document.querySelectorAll("pre:not([tabindex])")) {
      if (one.scrollHeight > one.clientHeight || one.scrollWidth > one.clientWidth) one.tabIndex = 0;
    }
  }

  reach();
  for (const event of ["toggle", "refreshed"]) document.addEventListener(event, reach, true); // toggle does not bubble
  addEventListener("resize", reach);

  document.addEventListener("change", (event) => {
    const name = event.target.dataset && event.target.dataset.all;
    if (name) for (const one of boxes(name)) one.checked = event.target.checked;
    count();
  });

  document.addEventListener("submit", (event) => {
    const question = (event.submitter && event.submitter.dataset.confirm) || event.target.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
    if (event.defaultPrevented || event.target.method !== "post") return;
    // After the event, since a disabled button does not send its value.
    setTimeout(() => { for (const button of event.target.querySelectorAll("button")) if (!button.disabled) sending(button, true); });
  });

  function sending(button, is) {
    button.disabled = is;
    button.toggleAttribute("data-sending", is);
  }

  // Whoever comes back to the page as it was can send again.
  addEventListener("pageshow", () => {
    for (const button of document.querySelectorAll("[data-sending]")) sending(button, false);
  });

  document.addEventListener("click", async (event) => {
    const button = event.target.closest && event.target.closest("[data-copy]");
    if (!button) return;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      const before = button.textContent;
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = before; }, 1500);
    } catch (error) { /* not allowed: the text can be chosen by hand */ }
  });
})();
