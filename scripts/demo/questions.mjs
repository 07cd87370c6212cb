/** What the demo asks of the model: texts to search for, a picture to classify, a spot to compare with. */

/**
 * Texts in several languages. `romanised` stands for a text whose letters no font of the machine has.
 * @type {{ text: string, language: string, meaning?: string, romanised?: string }[]}
 */
export const queries = [
  { text: 'guitarra', language: 'Spanish', meaning: 'guitar' },
  { text: 'ピザ', language: 'Japanese', meaning: 'pizza', romanised: 'piza' },
  { text: 'wütender Hund', language: 'German', meaning: 'angry dog' },
  { text: 'something to eat', language: 'English' },
  { text: '彩虹', language: 'Chinese', meaning: 'rainbow', romanised: 'cǎihóng' },
  { text: 'قطة', language: 'Arabic', meaning: 'cat', romanised: 'qiṭṭa' },
  { text: 'हाथी', language: 'Hindi', meaning: 'elephant', romanised: 'hāthī' },
  { text: 'sapin de Noël', language: 'French', meaning: 'Christmas tree' },
  { text: 'вертолёт', language: 'Russian', meaning: 'helicopter', romanised: 'vertolyot' },
  { text: 'musical instrument', language: 'English' },
];

/** A picture and labels in words of one's own choice: fox, dog, cat, bicycle, flower, weather. */
export const classification = {
  picture: 'fox.png',
  labels: ['fox', 'Hund', 'chat', 'bicicleta', 'çiçek', 'weather'],
};

/** A picture and the spot, as parts of its width and height, whose patch all others are compared with. */
export const comparison = { picture: 'cherries.png', spot: { x: 0.27, y: 0.72 } };
