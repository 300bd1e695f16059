// Tells, by a notification of the browser, that a run has ended which this browser saw under way.
// What is remembered: ser_told (may tell) in localStorage, ser_watched_RUN in sessionStorage, so that a reload loses nothing.
const keep = (storage, name, value) => {
  try {
    if (value === undefined) return storage.getItem(name);
    if (value === null) storage.removeItem(name);
    else storage.setItem(name, value);
  } catch { /* storage may be switched off; then a reload forgets */ }
  return null;
};

const wanted = () => keep(localStorage, "ser_told") === "yes" && able() && Notification.permission === "granted";
const able = () => window.isSecureContext && "Notification" in window;

export default function ({ data, parentElement }) {
  const place = parentElement.querySelector("#told");
  const watched = `ser_watched_${data.run}`;
  if (data.active) keep(sessionStorage, watched, "yes");
  else if (keep(sessionStorage, watched)) {
    keep(sessionStorage, watched, null);
    if (wanted()) tell(data);
  }
  draw(place, data);
}

function tell(data) {
  try {
    // one tag a run: several tabs that watch it make one notification
    const shown = new Notification(data.title, { body: data.body, tag: `ser-${data.run}` });
    shown.onclick = () => { window.focus(); shown.close(); };
  } catch { /* some browsers on phones let service workers only */ }
}

function draw(place, data) {
  place.replaceChildren();
  if (!data.active) return;
  if (!able()) {
    const why = document.createElement("span");
    why.textContent = window.isSecureContext
      ? "This browser shows no notifications."
      : "Browsers show notifications of pages that come by https or from this machine only.";
    place.append(why);
    return;
  }
  const button = document.createElement("button");
  button.type = "button";
  const on = wanted();
  button.setAttribute("aria-pressed", String(on));
  button.textContent = on ? "This browser tells you when it ends" : "Tell me when it ends";
  button.onclick = async () => {
    if (on) keep(localStorage, "ser_told", "no");
    else if ((await Notification.requestPermission()) === "granted") keep(localStorage, "ser_told", "yes");
    draw(place, data);
  };
  place.append(button);
  if (!on && Notification.permission === "denied") {
    const why = document.createElement("span");
    why.textContent = "Notifications are blocked for this page; the browser's settings can allow them.";
    place.append(why);
  }
}
