// The words of a command line, quoted as a shell wants them.

/** A text as one word of a shell. */
export const quoted = (text) => (/^[\w./:,@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** The words of a text: apart by spaces, but for what stands between quotes; a backslash takes the next character as it is. */
export const wordsOf = (text) => split(text).words;

/** Whether a text ends within quotes, or behind a backslash. */
export const isCut = (text) => split(text).rest !== "";

function split(text) {
  const words = [];
  const part = /\s*((?:[^\s'"\\]+|'[^']*'|"(?:[^"\\]|\\.)*"|\\.)+)/gsy;
  let end = 0;
  for (let found = part.exec(text); found; found = part.exec(text)) {
    words.push(plain(found[1]));
    end = part.lastIndex;
  }
  return { words, rest: text.slice(end).trim() };
}

const plain = (word) => word.replace(/'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)/gs, (_, single, double, escaped) => single ?? double?.replace(/\\(.)/gs, "$1") ?? escaped);
