"""What demo.py writes besides the annotated pictures, and who writes what."""
import os
import sys

from yolo3.atomic import write_json
from yolo3.files import check_output, make_output_folder
from yolo3.show.crops import crop_writer
from yolo3.show.csv_file import COLUMNS, write_csv
from yolo3.show.labels import label_writer
from yolo3.show.sheet import Sheet, check_sheet


def check_files(args, used):
    """Check, before the work, the files to write; `used` are those that the command reads. Raises UserError."""
    args.json = check_output('--json', args.json, used, begins='[{"file":')
    args.csv = check_output('--csv', args.csv, [*used, args.json], kinds=('.csv',), begins=','.join(COLUMNS))
    args.sheet = check_sheet(args.sheet, [*used, args.json, args.csv])


class Outputs:
    """The outputs that the flags `args` ask for. Makes their folders; raises UserError.

    classes: the names of the detector's. used: the files that the command reads. `extras`: for `annotate_image`.
    """

    def __init__(self, args, classes, used):
        self._args, self._sheet = args, Sheet() if args.sheet else None
        self.extras = [self._sheet.add] if args.sheet else []
        if args.save_txt:
            folder = os.path.join(args.out_dir, 'labels')
            make_output_folder('--save-txt', folder)
            self.extras.append(label_writer(folder, classes, used))
        if args.save_crops:
            folder = os.path.join(args.out_dir, 'crops')
            make_output_folder('--save-crops', folder)
            self.extras.append(crop_writer(folder, used))

    def write(self, records):
        """Write the files of all `records` of `annotate_image`."""
        if self._args.json:
            write_json(self._args.json, records)
        if self._args.csv:
            write_csv(self._args.csv, records)
        if self._sheet:
            told = self._sheet.write(self._args.sheet)
            if told:
                print(told, file=sys.stderr)
