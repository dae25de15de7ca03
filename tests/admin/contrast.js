// Evaluated in the page: each visible text whose contrast with what is behind it is under 4.5 to 1 (WCAG 2.2,
// 1.4.3), as "text (colour on ground: ratio)".
() => {
  const parts = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const channel = (value) => (value /= 255, value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = ({ r, g, b }) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.a > 0.99 && at.namespaceURI !== "http://www.w3.org/2000/svg") return colour;
    }
    return { r: 255, g: 255, b: 255 };
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    const box = node.getBoundingClientRect();
    if (!text || box.width < 2 || !node.checkVisibility() || node.closest("button:disabled, .hidden, .skip, script, noscript")) continue;
    const style = getComputedStyle(node);
    const drawn = node.namespaceURI === "http://www.w3.org/2000/svg" ? style.fill : style.color;
    const [a, b] = [luminance(parts(drawn)), luminance(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${text.slice(0, 30)} (${drawn} on ${JSON.stringify(ground(node))}: ${ratio.toFixed(2)})`);
  }
  return [...new Set(found)];
}
