// Where the console is mounted: everything is relative to the page's base, so that it works under any path.

/** @param {string} path relative to the console, without a slash at its beginning */
export const urlOf = (path) => new URL(path, document.baseURI).href;

/** Keeps a setting of this browser; where nothing may be kept, it lasts as long as the page. */
export const setting = {
  get(name) {
    try {
      return localStorage.getItem(`lts.${name}`);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      if (value == null) localStorage.removeItem(`lts.${name}`);
      else localStorage.setItem(`lts.${name}`, value);
    } catch {
      // A browser that keeps nothing.
    }
  },
};
