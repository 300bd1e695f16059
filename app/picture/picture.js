// A figure as a picture: tells on hovering what its nearest mark stands for, and asks for plotly's own on a click.
const NEAR = 28; // pixels between pointer and mark

export default function ({ data, parentElement, setTriggerValue }) {
  const place = parentElement.querySelector("#picture");
  place.style.height = `${data.height}px`;
  const widths = Object.keys(data.drawn).map(Number).sort((a, b) => a - b);
  let shown = 0;
  let marks = [];

  const draw = () => {
    const room = place.clientWidth;
    if (!room) return;
    const fits = widths.filter((width) => width <= room + 4).pop() ?? widths[0];
    if (fits === shown) return;
    shown = fits;
    place.innerHTML = data.drawn[fits];
    const picture = place.querySelector("svg");
    picture?.setAttribute("height", data.height - data.title);
    picture?.setAttribute("preserveAspectRatio", "xMinYMin");
    marks = [...place.querySelectorAll("title")].map((title) => {
      const mark = title.parentElement;
      mark.dataset.told = title.textContent;
      title.remove();
      return mark;
    });
    place.setAttribute("aria-label", place.querySelector("figcaption")?.textContent ?? "");
  };

  const tell = (event) => {
    place.querySelector("#told")?.remove();
    let best = null;
    let least = NEAR;
    for (const mark of marks) {
      const box = mark.getBoundingClientRect();
      const across = Math.max(box.left - event.clientX, 0, event.clientX - box.right);
      const up = Math.max(box.top - event.clientY, 0, event.clientY - box.bottom);
      const far = Math.hypot(across, up);
      if (far < least) [best, least] = [mark, far];
    }
    if (!best) return;
    const told = document.createElement("div");
    told.id = "told";
    told.textContent = best.dataset.told;
    place.append(told);
    const frame = place.getBoundingClientRect();
    const box = best.getBoundingClientRect();
    const left = box.left + box.width / 2 - frame.left - told.offsetWidth / 2;
    const top = box.top - frame.top - told.offsetHeight - 6;
    told.style.left = `${Math.max(0, Math.min(left, frame.width - told.offsetWidth))}px`;
    told.style.top = `${top < 0 ? box.bottom - frame.top + 6 : top}px`;
  };

  place.onpointermove = tell;
  place.onpointerleave = () => place.querySelector("#told")?.remove();
  place.onclick = () => setTriggerValue("live", true);
  place.onkeydown = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    setTriggerValue("live", true);
  };
  draw();
  place.watcher?.disconnect(); // this is called again with every change of the data
  place.watcher = new ResizeObserver(draw);
  place.watcher.observe(place);
  return () => place.watcher.disconnect();
}
